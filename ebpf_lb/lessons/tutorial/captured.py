"""A connection to a Service of a step, captured and drawn."""

from dataclasses import dataclass

from ebpf_lb.lessons.scenarios import run as running
from ebpf_lb.lessons.scenarios import text as drawing
from ebpf_lb.lessons.scenarios import way
from ebpf_lb.lessons.scenarios.catalog import Scenario
from ebpf_lb.lessons.scenarios.recording import Recording
from ebpf_lb.lessons.scenarios.way import Story
from ebpf_lb.lessons.tutorial.stage import Stage


@dataclass(frozen=True, slots=True)
class Question(Scenario):
    """A client asks a Service, in a namespace that is there already."""

    place: str = ""

    @property
    def namespace(self) -> str:
        return self.place


def connect(
    stage: Stage, name: str, question: Question, answer: bool = False
) -> tuple[Recording, Story]:
    """Shows the way of the first packet, and draws it as a picture of this name. answer: also the
    way back."""
    version = int(stage.lab.options.families[0])
    [recording] = running.record(stage.lab, question, version)
    story = way.tell(recording)
    outcome = story.connection.outcome
    stage.check(outcome == question.outcome, f"the connection was {outcome}")
    stage.show("\n".join(drawing.both_ways(story) if answer else drawing.first_way(story)))
    stage.picture(name, question, story)
    return recording, story

"""The steps in their order, and running them."""

import textwrap
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO

from ebpf_lb.errors import UserError
from ebpf_lb.lab.cluster import Lab
from ebpf_lb.lessons.tutorial import page
from ebpf_lb.lessons.tutorial.stage import Stage, UnexpectedError, set_up
from ebpf_lb.lessons.tutorial.steps import (
    cluster_ip,
    deployment,
    discovery,
    environment,
    ingress,
    kinds,
    network,
    outside,
)


class NoSuchStepError(UserError):
    """The tutorial has no step of this name."""


@dataclass(frozen=True, slots=True)
class Step:
    """text: in two sentences, what it shows. nodes: how many the lab must have."""

    name: str
    title: str
    text: str
    act: Callable[[Stage], None]
    nodes: int = 1


STEPS = (
    Step("deployment", deployment.TITLE, deployment.TEXT, deployment.act),
    Step("clusterip", cluster_ip.TITLE, cluster_ip.TEXT, cluster_ip.act),
    Step("environment", environment.TITLE, environment.TEXT, environment.act),
    Step("dns", discovery.TITLE, discovery.TEXT, discovery.act),
    Step("outside", outside.TITLE, outside.TEXT, outside.act, nodes=2),
    Step("kinds", kinds.TITLE, kinds.TEXT, kinds.act),
    Step("ingress", ingress.TITLE, ingress.TEXT, ingress.act),
    Step("network", network.TITLE, network.TEXT, network.act, nodes=2),
)


def find(name: str) -> Step:
    """By name or number. Raises NoSuchStepError."""
    for number, step in enumerate(STEPS, start=1):
        if name in (step.name, str(number)):
            return step
    names = ", ".join(step.name for step in STEPS)
    raise NoSuchStepError(f"the tutorial has no step {name!r}; it has {names}")


def title(step: Step) -> str:
    return f"{STEPS.index(step) + 1}. {step.title}"


def run(
    lab: Lab, step: Step, out: TextIO, kind: type[Stage] = Stage, pages: Path | None = None
) -> float:
    """How many seconds it took. Raises UnexpectedError where something else is seen than the step
    is about. kind: the stage on which it takes place. pages: a folder that gets a page of it."""
    if lab.options.nodes < step.nodes:
        raise UnexpectedError(f"step {step.name} needs a lab of {step.nodes} nodes or more")
    heading = title(step)
    print(
        f"{heading}\n{'=' * len(heading)}\n{textwrap.fill(step.text, 96)}\n", file=out, flush=True
    )
    began = time.monotonic()
    with set_up(lab, step.name, out, kind) as stage:
        try:
            step.act(stage)
        except UnexpectedError as error:
            raise UnexpectedError(f"step {step.name}: {error}") from None
    if pages is not None:
        page.write(pages, step.name, heading, step.text, stage.told)
    took = time.monotonic() - began
    print(f"\n({took:.1f} s)\n", file=out, flush=True)
    return took

"""A step of the tutorial whose subject is broken, as a process of its own:

    python -m tests.lab.sabotage LAB STEP NUMBER EXPECTED [OLD NEW]

In what the step applies, OLD is written as NEW. Prints the sentence with which the step fails, and
nothing where it does not. For what EXPECTED is about it waits for a short time only, since it will
not come; for all else as long as people do. NUMBER tells apart those that run side by side.
"""

import io
import json
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from ebpf_lb.lab.cluster import Lab
from ebpf_lb.lessons.tutorial.course import find
from ebpf_lb.lessons.tutorial.stage import Json, Stage, T, UnexpectedError, set_up
from ebpf_lb.lessons.tutorial.steps import ingress

_SHORT_S = 4.0


def broken(expected: str, old: str, new: str) -> type[Stage]:
    class Broken(Stage):
        found = not old

        def apply(self, text: str, namespace: str = "", *, shown: bool = True) -> None:
            self.__class__.found |= old in text
            super().apply(text.replace(old, new) if old else text, namespace, shown=shown)

        def patch(self, path: str, change: Json) -> None:
            text = json.dumps(change)
            self.__class__.found |= old in text
            super().patch(path, json.loads(text.replace(old, new)) if old else change)

        def wait(self, what: str, look: Callable[[], T]) -> T:
            self.within_s = _SHORT_S if expected in what else Stage.within_s
            return super().wait(what, look)

        @contextmanager
        def labs_beside(self, networks: Sequence[str]) -> Iterator[dict[str, Callable[[], Lab]]]:
            yield {}

    return Broken


def main() -> None:
    lab, name, number, expected, *change = sys.argv[1:]
    old, new = change or ("", "")
    kind = broken(expected, old, new)
    ingress.HOST = f"cafe{number}.example.com"  # they share one controller
    with set_up(Lab(lab), f"{name}-{number}", io.StringIO(), kind) as stage:
        try:
            find(name).act(stage)
        except UnexpectedError as error:
            print(error)
    assert kind.found, f"nothing that the step applies says {old!r}"  # type: ignore[attr-defined]


if __name__ == "__main__":
    main()

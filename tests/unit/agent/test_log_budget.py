"""What one object may write into the log of every node."""

import contextlib
from typing import Any

import pytest
from structlog import DropEvent

from ebpf_lb.agent.log_budget import NAMESPACE_BYTES, OBJECT_BYTES, REFILL_S, LogBudget
from tests.unit.agent.fakes import Clock

MARGIN = 400  # a line that says that more is left out


class Written:
    """A log behind a budget."""

    def __init__(self) -> None:
        self.clock = Clock()
        self._budget = LogBudget(self.clock)
        self.lines: list[dict[str, Any]] = []

    def write(self, **fields: Any) -> None:
        with contextlib.suppress(DropEvent):
            self.lines.append(self._budget(None, "warning", {"event": "watch problem", **fields}))

    @property
    def size(self) -> int:
        return sum(len(str(line)) for line in self.lines)


@pytest.fixture
def log() -> Written:
    return Written()


def test_few_lines_are_as_they_are(log: Written) -> None:
    log.write(object="default/web", problem="port 0 is ignored")
    assert log.lines == [
        {"event": "watch problem", "object": "default/web", "problem": "port 0 is ignored"}
    ]


def test_a_flood_about_one_object_is_bounded_and_said_to_be(log: Written) -> None:
    for number in range(10_000):
        log.write(object="default/web", problem=f"port {number} is ignored")
    assert log.size < OBJECT_BYTES + MARGIN
    assert log.lines[-1]["event"] == "too much about one object"
    log.write(object="default/other", problem="port 0 is ignored")
    log.write(problem="of no object")
    assert [line.get("object") for line in log.lines[-2:]] == ["default/other", None]
    log.clock.now += REFILL_S
    log.write(object="default/web", problem="port 0 is ignored")
    assert log.lines[-1]["object"] == "default/web"


def test_a_long_text_is_cut(log: Written) -> None:
    log.write(service="default/web", problem="x" * 300_000)
    assert log.size < OBJECT_BYTES


def test_many_objects_of_one_namespace_share_its_budget(log: Written) -> None:
    for number in range(20_000):
        log.write(service=f"tenant/s{number}", problem="x" * 200)
    assert log.size < 2 * NAMESPACE_BYTES
    log.write(service="other/web", problem="y")
    assert log.lines[-1]["service"] == "other/web"

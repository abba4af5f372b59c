"""What a restart finds of Services that have changed meanwhile."""

import pytest

from ebpf_lb.agent.programming.programmer import Programmer
from ebpf_lb.model.key import ObjectKey
from ebpf_lb.model.values import Family, Protocol
from ebpf_lb.plan.forwarding import Forwarding, ServicePortName
from tests.unit.agent.fakes import Log, Writer

KEY = ObjectKey("default", "web")
NAME = ServicePortName("default", "web", "http", Protocol.TCP)


def forwarding(family: Family) -> Forwarding:
    return Forwarding(NAME, family, (), (), (), False)


@pytest.mark.parametrize("left", list(Family), ids=lambda family: family.directory)
def test_a_service_that_was_of_both_families_before_the_restart(left: Family) -> None:
    writers = {family: Writer(family, [forwarding(family)]) for family in Family}
    programmer = Programmer(writers, lambda: 0.0, Log())
    programmer.program(KEY, [forwarding(left)])
    programmer.remove_unwanted()
    assert all(writer.held for writer in writers.values())
    programmer.retain()
    assert {family for family, writer in writers.items() if writer.held} == {left}


def test_what_could_not_be_planned_keeps_what_it_has_in_both_families() -> None:
    writers = {family: Writer(family, [forwarding(family)]) for family in Family}
    programmer = Programmer(writers, lambda: 0.0, Log())
    programmer.fail(KEY, "internal error")
    programmer.remove_unwanted()
    programmer.retain()
    assert all(writer.held for writer in writers.values())

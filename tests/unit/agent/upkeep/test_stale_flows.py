"""When the connection table is gone through for flows of what left."""

from ebpf_lb.agent.upkeep.stale_flows import StaleFlows
from ebpf_lb.model.values import Family
from tests.unit.agent.fakes import Log, Writer


class Table:
    def __init__(self) -> None:
        self.passes = 0
        self.error: OSError | None = None

    def end_stale(self) -> None:
        if self.error:
            raise self.error
        self.passes += 1


def test_once_at_the_start_and_then_only_when_something_left() -> None:
    writers = {family: Writer(family) for family in Family}
    tables = {family: Table() for family in Family}
    flows = StaleFlows(writers, tables, Log())
    for _ in range(3):
        flows.check()
    assert [tables[family].passes for family in Family] == [1, 1]
    writers[Family.IPV6].udp_departures += 2
    for _ in range(3):
        flows.check()
    assert [tables[family].passes for family in Family] == [1, 2]


def test_what_failed_is_said_once_and_tried_again() -> None:
    writer, table, log = Writer(Family.IPV4), Table(), Log()
    table.error = OSError(1, "no")
    flows = StaleFlows({Family.IPV4: writer}, {Family.IPV4: table}, log)
    flows.check()
    flows.check()
    assert len(log.lines) == 1
    table.error = None
    flows.check()
    assert table.passes == 1

"""`make bench` works: every path is taken by every packet that it is measured with."""

from __future__ import annotations

import math

import pytest

from ebpf_lb.datapath.settings import Settings
from ebpf_lb.model.values import Family
from tests.bench import dump, many_services, monitor, rivals, startup, writer
from tests.bench.__main__ import QUICK, run
from tests.bench.stripped import NAMES, Stripped
from tests.capabilities import DATAPATH, LAB, needs
from tests.datapath.kernel import LOOPBACK, TC_REDIRECT, tc_context
from tests.support.packets import TCP, UDP, Packet, parse

pytestmark = needs(*DATAPATH)


@pytest.mark.parametrize("family", list(Family), ids=lambda family: family.directory)
def test_every_line_measures_what_it_names(
    family: Family, capsys: pytest.CaptureFixture[str]
) -> None:
    found = [figure for _, figure in run(QUICK, [family])]
    assert len(found) == len({(f.path.name, f.path.traffic.flows, f.services) for f in found})
    for figure in found:
        # no flow is pushed out; but by chance a checksum looks unfinished, and XDP leaves it to TC
        assert figure.off_path <= QUICK.packets * (QUICK.rounds + 1) / 100, figure
        # how much it is says something about a quiet machine only
        assert math.isfinite(figure.over_empty_ns) and figure.spread_ns >= 0, figure
    printed = capsys.readouterr().out
    assert "established, TCP port change, there" in printed and "instructions:" in printed


@pytest.mark.parametrize("family", list(Family), ids=lambda family: family.directory)
@pytest.mark.parametrize("protocol", [TCP, UDP], ids=["tcp", "udp"])
def test_the_stripped_program_serves(family: Family, protocol: int) -> None:
    """There and back, with right checksums; else its figures would be of nothing."""
    client, vip, backend = "10.244.1.5", "10.96.0.10", "10.244.1.9"
    if family is Family.IPV6:
        client, vip, backend = "fd00:10:244:1::5", "fd00:10:96::10", "fd00:10:244:1::9"
    stripped = Stripped(family, 1024)
    stripped.serve(protocol, (vip, 80), (backend, 8080), LOOPBACK)
    asked = Packet(client, vip, 40000, 80, protocol, payload=b"x" * 20)
    answer = Packet(backend, client, 8080, 40000, protocol, payload=b"x" * 20)
    wanted = (
        asked.but(destination=backend, destination_port=8080),
        answer.but(source=vip, source_port=80),
    )
    for name, packet, expected in zip(NAMES, (asked, answer), wanted, strict=True):
        frame = packet.frame()
        done = stripped.programs[name].test_run(frame, ctx_in=tc_context(LOOPBACK))
        assert done.retval == TC_REDIRECT
        assert parse(done.data_out) == expected and parse(done.data_out).valid


def test_the_other_figures() -> None:
    told = [
        *writer.lines(services=20, changes=5),
        *rivals.lines(rivals=20, ports=5, addresses=3),
        *dump.lines(rounds=1),
    ]
    assert len(told) == 3 * len(Family) + 4
    assert all(" ms  budget " in line for line in told)


def test_few_services_and_many() -> None:
    found = list(many_services.ratios([Family.IPV4], rounds=2, packets=2000, many=20))
    assert [(each.path, each.flows) for each in found] == [
        (f"established, TCP same port, {way}", flows)
        for flows in many_services.FLOWS
        for way in ("there", "back")
    ]
    assert all(len(each.rounds) == 2 and 0 < each.median < 100 for each in found)


def test_a_monitor_that_listens() -> None:
    small = Settings(flows=1 << 14, affinity=1024, sockets=1024)
    found = list(monitor.ratios([Family.IPV4], rounds=2, packets=500, settings=small))
    assert [(one.path.partition(",")[0], one.kind) for one in found] == [
        (path, kind)
        for path in ("established", "established", "new flow")
        for kind in monitor.KINDS
    ]
    assert all(len(one.rounds) == 2 and 0 < one.median < 100 for one in found)
    # whoever listens to new connections hears of those of its own turns, and of no others
    assert [one.told for one in found] == [0, 0, 0, 0, 0, 3 * 500]


@needs(*LAB)
def test_the_start_of_an_agent() -> None:
    told = list(startup.lines(rounds=1, services=2))
    assert len(told) == 6
    assert all(" ms  budget " in line for line in told)

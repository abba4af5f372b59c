"""`make bench` works: every path is taken by every packet that it is measured with."""

from __future__ import annotations

import pytest

from ebpf_lb.model.values import Family
from tests.bench import writer
from tests.bench.__main__ import QUICK, run
from tests.capabilities import DATAPATH, needs

pytestmark = needs(*DATAPATH)


@pytest.mark.parametrize("family", list(Family), ids=lambda family: family.directory)
def test_every_line_measures_what_it_names(
    family: Family, capsys: pytest.CaptureFixture[str]
) -> None:
    found = [figure for _, figure in run(QUICK, [family])]
    assert len(found) == len({(f.path.name, f.path.traffic.flows, f.services) for f in found})
    for figure in found:
        # a table of 1,024 entries for 256 flows: a few may be pushed out by others
        assert figure.off_path <= QUICK.packets * (QUICK.rounds + 1) / 100, figure
        # whatever else a machine does meanwhile, a path costs no negative time and no microseconds
        assert -20 < figure.over_empty_ns < 20_000, figure
    printed = capsys.readouterr().out
    assert "established, TCP port change, there" in printed and "instructions:" in printed


def test_the_writers_figures() -> None:
    told = list(writer.lines(services=20, changes=5))
    assert len(told) == 3 * len(Family)
    assert all(" ms  budget " in line for line in told)

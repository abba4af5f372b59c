"""Floods of real packets, a second each (`make floods`: a minute): nobody else notices.

Others are tests of single packets (tests/datapath/test_lifetimes.py)."""

from collections.abc import Iterator

import pytest

from tests.bench import floods as bench
from tests.bench.floods import GROWTH_MIB, Floods
from tests.lab.conftest import Room

KINDS = ("SYN, answered", "UDP, answered", "fragments", "ICMP errors")
PACKETS = 500  # so many go out on a machine that is busy with other things, too


@pytest.fixture(scope="module")
def flooded(shared_room: Room) -> Iterator[Floods]:
    with bench.floods(shared_room) as ready:
        yield ready


@pytest.mark.rule("CO-8", "CO-30")
@pytest.mark.parametrize("kind", KINDS)
def test_nobody_else_notices(flooded: Floods, kind: str) -> None:
    found = flooded.run(kind, seconds=1)
    assert found.packets > PACKETS
    assert found.established == 120 and not found.lost
    assert found.tried > 4 and found.succeeded == found.tried
    assert found.after_mib < found.before_mib + GROWTH_MIB

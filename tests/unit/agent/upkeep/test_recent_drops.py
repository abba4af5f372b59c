"""What was dropped in the last minute; since when no agent runs."""

import os
import time
from pathlib import Path

from ebpf_lb.agent.upkeep.heartbeat import Heartbeat
from ebpf_lb.agent.upkeep.recent_drops import RecentDrops
from ebpf_lb.datapath.layout import load
from ebpf_lb.datapath.reader.drops import Ending, since
from ebpf_lb.model.values import Family

REASONS = {one.name: one for one in load(Family.IPV4).reasons.values()}
WEB = Ending("ipv4", REASONS["NO_ENDPOINTS"], "default/web", "TCP")
LOST = Ending("ipv4", REASONS["NO_ROUTE"], "", "")


class Node:
    def __init__(self) -> None:
        self.now = 1000.0
        self.counted: dict[Ending, int] = {WEB: 100}
        self.drops = RecentDrops(lambda: dict(self.counted), lambda: self.now)

    def passes(self, seconds: int) -> None:
        for _ in range(seconds):
            self.now += 1
            self.drops.check()

    def shown(self) -> list[tuple[str, str | None, int]]:
        rows = self.drops.status()["dropsLastMinute"]
        return [(row["reason"], row["service"], row["packets"]) for row in rows]


def test_what_was_counted_before_is_not_told() -> None:
    node = Node()
    assert node.shown() == []
    node.drops.check()
    assert node.shown() == []
    node.counted = {WEB: 103, LOST: 7}
    assert node.shown() == [("NO_ROUTE", None, 7), ("NO_ENDPOINTS", "default/web", 3)]


def test_what_is_older_than_a_minute_is_not_told() -> None:
    node = Node()
    node.passes(10)
    node.counted = {WEB: 105}
    node.passes(50)
    assert node.shown() == [("NO_ENDPOINTS", "default/web", 5)]
    node.passes(30)
    assert node.shown() == []


def test_a_counter_that_began_anew() -> None:
    assert since({WEB: 100}, {WEB: 4}) == {WEB: 4}


def test_a_heartbeat_shows_in_the_folder(tmp_path: Path) -> None:
    os.utime(tmp_path, (1, 1))
    Heartbeat(tmp_path).check()
    assert time.time() - tmp_path.stat().st_mtime < 60
    Heartbeat(tmp_path / "gone").check()

"""Frontends with consistent hashing are told so when they are not new any more."""

from contextlib import suppress
from dataclasses import replace

from ebpf_lb.datapath.writer import FamilyWriter
from ebpf_lb.datapath.writer.frontends import CONSISTENT_AFTER_S
from ebpf_lb.model.values import Family
from ebpf_lb.plan.forwarding import Forwarding, FrontendFlag, Table
from tests.unit.datapath.writer.fake_maps import FakeMaps
from tests.unit.datapath.writer.writing import Clock, forwarding, writer_of

CONSISTENT = FrontendFlag.CONSISTENT


def hashed(name: str = "web", vips: tuple[int, ...] = (100,), size: int = 11) -> Forwarding:
    plain = forwarding(name, vips=vips, cluster_table=Table(size))
    flagged = tuple(one._replace(flags=FrontendFlag.LOCAL | CONSISTENT) for one in plain.frontends)
    return replace(plain, frontends=flagged)


class Node:
    def __init__(self, **capacities: int) -> None:
        self.fake, self.clock = FakeMaps(Family.IPV4, **capacities), Clock()
        self.writer: FamilyWriter = writer_of(self.fake, self.clock)

    def restart(self) -> None:
        self.writer = writer_of(self.fake, self.clock)

    def after(self, seconds: float) -> None:
        self.clock.now_s += seconds
        self.writer.housekeeping(self.clock())

    @property
    def told(self) -> dict[int, bool]:
        """By the VIP's last byte."""
        layout = self.fake.layout
        flags = layout.enum("frontend_flag")
        found = {}
        for key, value in self.fake.tables["frontends"].items():
            entry = layout.struct("frontend").unpack(value)
            if entry.service_id:
                assert entry.flags & flags["FRONTEND_LOCAL"]
                vip = layout.struct("frontend_key").unpack(key).address[-1]
                found[vip] = bool(entry.flags & flags["FRONTEND_CONSISTENT"])
                assert not (found[vip] and entry.flags & flags["FRONTEND_YOUNG"])
        return found


def test_a_minute_after_it_appeared() -> None:
    node = Node()
    node.writer.set(hashed())
    node.after(CONSISTENT_AFTER_S - 1)
    node.writer.set(hashed(vips=(100, 101)))
    assert node.told == {100: False, 101: False}
    unpack = node.fake.layout.struct("frontend").unpack
    flags = [unpack(value).flags for _, value in node.fake.tables["frontends"].items()]
    assert sum(bool(each & FrontendFlag.YOUNG) for each in flags) == 2
    node.after(1.1)
    assert node.told == {100: True, 101: False}
    writes = node.fake.hooks.writes
    node.writer.set(hashed(vips=(100, 101)))
    assert node.fake.hooks.writes == writes
    node.after(CONSISTENT_AFTER_S)
    assert node.told == {100: True, 101: True}


def test_a_restart_keeps_what_the_kernel_holds_and_counts_anew_else() -> None:
    node = Node()
    node.writer.set(hashed())
    node.after(CONSISTENT_AFTER_S + 1)
    node.writer.set(hashed(vips=(100, 101)))
    node.after(50)
    node.restart()
    node.writer.set(hashed(vips=(100, 101)))
    node.writer.retain([hashed().name])
    assert not node.writer.stats
    node.after(CONSISTENT_AFTER_S - 1)
    assert node.told == {100: True, 101: False}
    node.after(2)
    assert node.told == {100: True, 101: True}


def test_a_frontend_that_moves_is_new_to_its_new_service() -> None:
    node = Node()
    node.writer.set(hashed("a"))
    node.after(CONSISTENT_AFTER_S + 1)
    node.writer.set(hashed("b"))
    node.writer.delete(hashed("a").name)
    assert node.told == {100: False}
    node.after(CONSISTENT_AFTER_S + 1)
    assert node.told == {100: True}


def test_one_that_moves_or_goes_while_it_is_new() -> None:
    node = Node()
    node.writer.set(hashed("a", vips=(100, 101)))
    node.after(30)
    node.writer.set(hashed("b"))
    node.writer.set(hashed("a", vips=(101,)))
    node.after(31)
    assert node.told == {100: False, 101: True}
    node.writer.delete(hashed("b").name)
    node.after(60)
    assert node.told == {101: True}


def test_another_algorithm_ends_it_at_once() -> None:
    node = Node()
    node.writer.set(hashed())
    node.after(CONSISTENT_AFTER_S + 1)
    plain = [one._replace(flags=FrontendFlag.LOCAL) for one in hashed().frontends]
    node.writer.set(replace(hashed(), frontends=tuple(plain), cluster_table=None))
    assert node.told == {100: False}
    node.writer.set(hashed())
    node.after(30)
    node.writer.set(replace(hashed(), frontends=tuple(plain), cluster_table=None))
    node.after(31)
    assert node.told == {100: False}


def test_without_room_for_its_table_it_does_not_hash_consistently() -> None:
    node = Node(slots=20)
    (problem,) = node.writer.set_all([hashed(size=53)])
    assert "without consistent hashing" in str(problem)
    node.after(CONSISTENT_AFTER_S + 1)
    assert node.told == {100: False}
    assert node.writer.set_all([hashed(size=11)]) == []
    node.after(CONSISTENT_AFTER_S + 1)
    assert node.told == {100: True}


def test_a_write_that_fails_is_tried_again() -> None:
    node = Node()
    node.writer.set(hashed())
    node.fake.hooks.writes, node.fake.hooks.fail_at = 0, 1
    with suppress(OSError):
        node.after(CONSISTENT_AFTER_S + 1)
    assert node.told == {100: False}
    node.after(1)
    assert node.told == {100: True}

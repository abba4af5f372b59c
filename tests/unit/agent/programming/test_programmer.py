"""What a restart finds of Services that have changed meanwhile; who is left out; who is told."""

import random
from dataclasses import replace
from typing import Any

import pytest

from ebpf_lb.agent.programming.programmer import Programmer
from ebpf_lb.model.key import ObjectKey
from ebpf_lb.model.values import Family, Protocol
from ebpf_lb.plan.forwarding import Backend, Forwarding, Frontend, FrontendKind, ServicePortName
from ebpf_lb.plan.priority import Priority
from ebpf_lb.plan.reserved import KUBERNETES
from ebpf_lb.plan.room import Demand
from tests.unit.agent.fakes import Clock, Log, Writer

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


def test_the_last_usable_endpoint_and_the_first_are_told() -> None:
    log = Log()
    programmer = Programmer({family: Writer(family) for family in Family}, lambda: 0.0, log)
    three = tuple(Backend(bytes([10, 1, 0, at]), 8080, False) for at in range(3))

    def become(backends: tuple[Backend, ...]) -> None:
        one = replace(forwarding(Family.IPV4), cluster=backends, has_any=bool(backends))
        programmer.program(KEY, [one])
        programmer.remove_unwanted()

    for backends in (three, three[:1], (), (), three[:2]):
        become(backends)
    told = [(one["service"], one["before"], one["now"]) for one in log.of("usable endpoints")]
    assert told == [("default/web:http", 1, 0), ("default/web:http", 0, 2)]
    programmer.program(KEY, [])
    programmer.remove_unwanted()
    become(())
    assert len(log.of("usable endpoints")) == 2


# not room for all


def ports(key: ObjectKey, number: int, first: int = 0) -> list[Forwarding]:
    """A Service of so many ports, each with an address of its own and a backend."""
    found = []
    for at in range(first, first + number):
        address = bytes([10, len(key.name), at >> 8, at & 255])
        found.append(
            Forwarding(
                ServicePortName(key.namespace, key.name, f"p{at:03}", Protocol.TCP),
                Family.IPV4,
                (Frontend(address, 80, FrontendKind.EXTERNAL_IP),),
                (Backend(address, 8080, False),),
                (),
                has_any=True,
            )
        )
    return found


class Small:
    """A node with room for so many Service ports."""

    def __init__(
        self, entries: int, share: int = 100, writer: Writer | None = None, frontends: int = 1000
    ) -> None:
        self.writer = writer or Writer(Family.IPV4)
        self.writer.capacity = Demand(entries, frontends, 1000, 1000, 1000)
        self.writer.room = entries
        self.clock, self.log, self.events = Clock(), Log(), list[tuple[ObjectKey, str]]()
        report: Any = lambda key, text: self.events.append((key, text))  # noqa: E731
        writers = {Family.IPV4: self.writer}
        self.programmer = Programmer(writers, self.clock, self.log, report, share)

    def want(self, **services: int) -> None:
        """`namespace_name`, and how many ports; the shorter name is the older Service."""
        for text, number in services.items():
            key = KUBERNETES if text == "kubernetes" else ObjectKey(*text.split("_"))
            tier = 0 if key == KUBERNETES else 1
            due = Priority(tier, len(key.name), key)
            self.programmer.program(key, ports(key, number), due)
        self.programmer.remove_unwanted()

    def seconds(self, **services: int) -> None:
        """Time passes, and what is to be tried again is."""
        for _ in range(5):
            self.clock.now += 1
            for key in sorted(self.programmer.to_retry()):
                text = "kubernetes" if key == KUBERNETES else "_".join(key)
                self.want(**{text: services.get(text, 0)})

    @property
    def held(self) -> dict[str, int]:
        """How many ports of each Service are in the maps."""
        found: dict[str, int] = {}
        for name in self.writer.held:
            found[name.name] = found.get(name.name, 0) + 1
        return found


def test_what_the_cluster_lives_by_is_never_left_out() -> None:
    """A tenant's Services took all there was; this one comes last."""
    node = Small(10)
    wanted = {"tenant_a": 6, "tenant_bb": 6}
    node.want(**wanted)
    node.programmer.retain()
    assert node.held == {"a": 6, "bb": 4}
    wanted |= {"kubernetes": 1}
    node.want(**wanted)
    node.seconds(**wanted)
    assert node.held == {"a": 6, "bb": 3, "kubernetes": 1}
    assert {refusal.key.name for refusal in node.programmer.refused.values()} == {"bb"}
    # and they get their place back
    wanted.pop("kubernetes")
    node.want(**wanted, kubernetes=0)
    node.seconds(**wanted)
    assert node.held == {"a": 6, "bb": 4}


def test_all_nodes_serve_the_same_whatever_happened_in_whatever_order() -> None:
    wanted = {"x_a": 3, "y_bb": 4, "x_ccc": 4, "y_dddd": 1, "kubernetes": 1}
    expected = None
    for seed in range(20):
        node, order = Small(9, 50), list(wanted.items())
        random.Random(seed).shuffle(order)
        for text, number in order:
            node.want(**{text: number})
            node.seconds(**wanted)
        expected = expected or node.held
        assert node.held == expected
    assert expected == {"kubernetes": 1, "a": 3, "bb": 4, "ccc": 1}


def test_one_namespace_leaves_room_to_the_others() -> None:
    node = Small(10, 50)
    node.want(tenant_a=20, tenant_bb=20, other_ccc=3)
    assert node.held == {"a": 5, "ccc": 3}
    told = node.programmer.refused.sentences()
    assert "namespace tenant has its share of the map services (5 entries)" in told[0]
    assert "raise namespaceShare in the configuration" in told[0]


def test_a_restart_over_full_maps_writes_nothing() -> None:
    first = Small(10, 70)
    wanted = {"tenant_a": 6, "tenant_bb": 6, "other_ccc": 9, "kubernetes": 1}
    first.want(**dict(sorted(wanted.items())))
    first.programmer.retain()
    first.seconds(**wanted)
    writes = first.programmer.writes
    second = Small(10, 70, first.writer)
    # in the order of priorities, as the loop has them
    second.want(kubernetes=1, tenant_a=6, tenant_bb=6, other_ccc=9)
    second.programmer.retain()
    assert second.programmer.writes == writes
    assert second.held == first.held == {"kubernetes": 1, "a": 6, "bb": 1, "ccc": 2}


def test_what_grew_before_the_restart_keeps_what_it_has() -> None:
    key = ObjectKey("x", "a")
    wanted = ports(key, 3)
    first = Small(10, frontends=4)
    first.programmer.program(key, wanted)
    first.programmer.remove_unwanted()
    held = dict(first.writer.held)
    last = wanted.pop()
    more = tuple(Frontend(bytes([9, 9, 9, n]), 80, FrontendKind.EXTERNAL_IP) for n in range(4))
    wanted.append(replace(last, frontends=more))
    for node in (first, Small(10, writer=first.writer, frontends=4)):
        node.programmer.program(key, wanted)
        node.programmer.remove_unwanted()
        node.programmer.retain()
        assert node.writer.held == held
        assert "frontends is full" in node.programmer.refused.summary


def test_ten_thousand_refusals_are_told_in_a_few_words() -> None:
    node = Small(10)
    node.want(tenant_a=300, tenant_bb=300)
    assert len(node.programmer.refused) == 590
    assert len(node.events) == len(node.log.of("not programmed")) == 6
    assert len(node.programmer.refused.sentences()) == 6
    assert node.programmer.refused.summary.startswith(
        "590 Service ports of 2 Services are not programmed as they should be, the first: Service "
        "port tenant/a:p010 (TCP, IPv4) is not programmed: the map services is full (10 entries)"
    )
    node.want(tenant_a=0, tenant_bb=0)
    node.seconds()
    assert node.programmer.refused.summary == "" and not node.programmer.refused
    assert node.held == {}

"""Interfaces that come, change, fail and go; numbers of SNAT sources."""

from types import SimpleNamespace

import pytest

from ebpf_lb.agent.attachments import SourceNumbers
from ebpf_lb.agent.inbox import NetworkChanged
from ebpf_lb.agent.roles import Address, Link
from ebpf_lb.datapath.attach import Direction
from ebpf_lb.model.values import Family, parse_address
from tests.unit.agent.fakes import NODE4, POD4, VETH4, VETH5, Agent, Writer, facts


@pytest.fixture
def agent() -> Agent:
    made = Agent()
    made.writer.calls.clear()
    return made


def attach_calls(agent: Agent) -> list[str]:
    found = [call for call in agent.writer.calls if "tach" in call]
    agent.writer.calls.clear()
    return found


def test_entries_say_bridge_and_source(agent: Agent) -> None:
    by_number = agent.writer.sources
    assert set(by_number.values()) == {NODE4, POD4}
    bridge, number = agent.writer.entries[4]
    assert (bridge, by_number[number]) == (3, POD4)
    bridge, number = agent.writer.entries[2]
    assert (bridge, by_number[number]) == (0, NODE4)


def test_come_and_go(agent: Agent) -> None:
    agent.tell(NetworkChanged(facts(VETH4, VETH5)))
    assert attach_calls(agent) == ["attach pod 5"]
    assert agent.loop.status()["interfaces"] == ["veth4", "veth5"]
    agent.tell(NetworkChanged(facts(VETH5)))
    assert attach_calls(agent) == ["detach 4"]
    assert set(agent.writer.entries) == {2, 5}


def test_a_port_that_joins_its_bridge_later_keeps_its_programs(agent: Agent) -> None:
    alone = Link(5, "veth5", "veth", 0, True)
    agent.tell(NetworkChanged(facts(VETH4, alone)))
    assert agent.writer.entries[5][0] == 0
    agent.writer.calls.clear()
    agent.tell(NetworkChanged(facts(VETH4, VETH5)))
    assert agent.writer.entries[5][0] == 3
    assert attach_calls(agent) == []


def test_a_pods_interface_that_becomes_an_uplink_loses_our_programs(agent: Agent) -> None:
    route = facts(VETH4)
    uplink = type(route)(
        route.links, route.addresses, route.default_routes | {(Family.IPV6, VETH4.index)}
    )
    agent.tell(NetworkChanged(uplink))
    assert attach_calls(agent) == ["detach 4"]
    assert agent.loop.status()["interfaces"] == []
    agent.tell(NetworkChanged(route))
    assert attach_calls(agent) == ["attach pod 4"]


def test_one_that_cannot_be_attached_is_reported_once_and_tried_again(agent: Agent) -> None:
    agent.control.refusing.add(5)
    agent.tell(NetworkChanged(facts(VETH4, VETH5)))
    agent.second()
    agent.second()
    assert agent.loop.status()["interfaceProblems"] == ["Cannot attach to 5."]
    assert len(agent.log.of("interface failed")) == 1
    agent.control.refusing.clear()
    agent.writer.calls.clear()
    agent.second()
    assert attach_calls(agent) == ["attach pod 5"]
    assert agent.loop.status()["interfaceProblems"] == []


def test_entries_of_interfaces_that_went_while_no_agent_ran() -> None:
    writer = Writer(Family.IPV4)
    writer.entries = {4: (3, 2), 99: (3, 2)}
    assert set(Agent(writer).writer.entries) == {2, 4}


def test_a_foreign_filter_ahead_of_ours_is_reported(agent: Agent) -> None:
    foreign = SimpleNamespace(direction=Direction.INGRESS, preference=1, kind="bpf", name="other")
    agent.control.foreign = [foreign]
    agent.tell(NetworkChanged(facts(VETH4, VETH5)))
    (line,) = agent.log.of("a foreign filter runs before ours and may end the chain")
    assert (line["interface"], line["direction"], line["preference"]) == ("veth5", "ingress", 1)


def test_a_second_address_of_the_bridge_changes_nothing(agent: Agent) -> None:
    entries = dict(agent.writer.entries)
    second = Address(3, parse_address("10.9.9.9"), 0)
    agent.tell(NetworkChanged(facts(VETH4, more=(second,))))
    assert agent.writer.entries == entries


def test_numbers_of_sources_keep_their_meaning() -> None:
    a, b, c = (parse_address(f"10.0.0.{last}") for last in (1, 2, 3))
    numbers = SourceNumbers({1: a, 7: b})
    assert [numbers.number(one) for one in (b, c, a, c)] == [7, 2, 1, 2]


def test_numbers_of_sources_are_given_anew_only_when_none_is_left() -> None:
    every = [parse_address(f"10.0.0.{last}") for last in range(256)]
    numbers = SourceNumbers({})
    given = [numbers.number(one) for one in every[:255]]
    assert given == list(range(1, 256))
    assert numbers.number(every[0]) == 1  # asked for again, so not the oldest any more
    assert numbers.number(every[255]) == 2
    assert numbers.number(every[2]) == 3

"""Interfaces that come, change, fail and go; numbers of SNAT sources."""

from dataclasses import replace

import pytest

from ebpf_lb.agent.inbox import HooksChanged, NetworkChanged
from ebpf_lb.agent.network.attachments import SourceNumbers
from ebpf_lb.agent.network.roles import Address, Link
from ebpf_lb.datapath.attach.tcx import Foreign
from ebpf_lb.datapath.writer import NODE_SOURCE_ID
from ebpf_lb.kube import resources
from ebpf_lb.kube.watch import Changed, Listed
from ebpf_lb.model.node import Node
from ebpf_lb.model.values import Family, parse_address, parse_network
from tests.unit.agent.fakes import (
    CNI0,
    NODE4,
    POD4,
    REST_S,
    VETH4,
    VETH5,
    Agent,
    Clock,
    Writer,
    facts,
)

NODES = resources.node("node1")


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
    # packets to a pod of this node leave by the bridge
    bridge, number = agent.writer.entries[3]
    assert (bridge, by_number[number]) == (0, POD4)


def test_the_first_number_is_the_nodes_preferred_address(agent: Agent) -> None:
    assert agent.writer.sources[NODE_SOURCE_ID] == NODE4
    assert NODE_SOURCE_ID not in {number for _, number in agent.writer.entries.values()}
    other = parse_address("192.0.2.77")
    agent.tell(NetworkChanged(facts(VETH4, more=(Address(2, other, 0),))))
    assert agent.writer.sources[NODE_SOURCE_ID] == NODE4
    named = Node("node1", addresses=(other,))
    agent.tell(Changed(NODES, named, named.key))
    assert agent.writer.sources[NODE_SOURCE_ID] == other


def test_a_restart_keeps_the_preferred_address_until_the_node_is_known(agent: Agent) -> None:
    other = parse_address("192.0.2.77")
    more = facts(VETH4, more=(Address(2, other, 0),))
    named = Node("node1", addresses=(other,))
    agent.tell(NetworkChanged(more), Changed(NODES, named, named.key))
    again = Agent(agent.writer, network=more)
    again.tell(Listed(NODES, (named,)))
    assert again.writer.stats.total() == 0


def test_pod_networks_are_the_configured_ones_or_the_nodes_own() -> None:
    ours, theirs = parse_network("10.244.1.0/24"), parse_network("fd00:10:244:1::/64")
    node = Node("node1", pod_networks=(ours, theirs))
    agent = Agent()
    agent.writer.pod_networks = {ours}  # from an earlier run
    agent.tell(NetworkChanged(facts(VETH4, VETH5)))
    assert agent.writer.pod_networks == {ours}
    agent.tell(Listed(NODES, (node,)))
    assert agent.writer.pod_networks == {ours}  # of this family alone
    agent.tell(Changed(NODES, Node("node1"), node.key))
    assert agent.writer.pod_networks == set()
    cluster = parse_network("10.244.0.0/16")
    configured = Agent(cluster_cidrs=(cluster,))
    assert configured.writer.pod_networks == {cluster}
    configured.tell(Listed(NODES, (node,)))
    assert configured.writer.pod_networks == {cluster}


def test_come_and_go(agent: Agent) -> None:
    agent.tell(NetworkChanged(facts(VETH4, VETH5)))
    assert attach_calls(agent) == ["attach pod 5"]
    assert agent.loop.status()["interfaces"] == ["veth4", "veth5"]
    agent.tell(NetworkChanged(facts(VETH5)))
    assert attach_calls(agent) == ["detach 4"]
    assert set(agent.writer.entries) == {2, 3, 5}
    agent.tell(NetworkChanged(facts()))
    assert set(agent.writer.entries) == {2}  # a bridge without pods is nothing to us


def test_a_port_that_joins_its_bridge_later_keeps_its_programs(agent: Agent) -> None:
    alone = Link(5, "veth5", "veth", 0, True)
    agent.tell(NetworkChanged(facts(VETH4, alone)))
    assert agent.writer.entries[5][0] == 0
    agent.writer.calls.clear()
    agent.tell(NetworkChanged(facts(VETH4, VETH5)))
    assert agent.writer.entries[5][0] == 3
    assert attach_calls(agent) == []


def test_a_pods_interface_that_becomes_an_uplink_changes_its_programs(agent: Agent) -> None:
    route = facts(VETH4)
    uplink = type(route)(
        route.links, route.addresses, route.default_routes | {(Family.IPV6, VETH4.index)}
    )
    agent.tell(NetworkChanged(uplink))
    assert attach_calls(agent) == ["attach uplink 4"]
    assert agent.loop.status()["interfaces"] == []
    assert agent.loop.status()["uplinks"] == ["eth0", "veth4"]
    assert agent.attachments.uplinks == {2, 4}
    agent.tell(NetworkChanged(route))
    # the bridge of pods is one again: what it may have been to others must not stay
    assert attach_calls(agent) == ["detach 3", "attach pod 4"]
    assert agent.loop.status()["uplinks"] == ["eth0"]


def test_uplinks_come_and_go(agent: Agent) -> None:
    tunnel = Link(9, "flannel.1", "vxlan", 0, False)
    overlay = parse_address("10.244.1.0")
    agent.tell(NetworkChanged(facts(VETH4, tunnel)))
    assert attach_calls(agent) == ["attach uplink 9"]
    assert agent.writer.sources[agent.writer.entries[9][1]] == NODE4
    agent.tell(NetworkChanged(facts(VETH4, tunnel, more=(Address(9, overlay, 0),))))
    assert attach_calls(agent) == []
    assert agent.writer.sources[agent.writer.entries[9][1]] == overlay
    agent.tell(NetworkChanged(facts(VETH4)))
    assert attach_calls(agent) == ["detach 9"]
    assert set(agent.writer.entries) == {2, 3, 4}


def test_an_uplink_that_becomes_a_bridge_of_pods_keeps_no_program() -> None:
    alone = facts()
    routed = type(alone)(
        alone.links, alone.addresses, alone.default_routes | {(Family.IPV4, CNI0.index)}
    )
    agent = Agent(network=routed)
    assert "attach uplink 3" in attach_calls(agent)
    agent.tell(NetworkChanged(facts(VETH4)))
    assert "detach 3" in attach_calls(agent)
    assert 3 in agent.writer.entries


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


def test_the_entry_of_one_that_could_not_be_attached_goes_with_it(agent: Agent) -> None:
    agent.control.refusing.add(5)
    agent.tell(NetworkChanged(facts(VETH4, VETH5)))
    assert 5 in agent.writer.entries
    agent.tell(NetworkChanged(facts(VETH4)))
    assert 5 not in agent.writer.entries
    assert agent.loop.status()["interfaceProblems"] == []


@pytest.mark.parametrize("heard", [frozenset({4}), None], ids=["which", "that-something"])
def test_what_somebody_removed_is_attached_again(
    agent: Agent, heard: frozenset[int] | None
) -> None:
    agent.control.lost[4] = ["ipv4/pod_ingress"]
    agent.second()
    assert agent.control.looks == [], "nothing was heard, so nothing is looked at"
    agent.tell_now(HooksChanged(heard))
    agent.second()
    assert attach_calls(agent) == ["attach pod 4"]
    [line] = agent.log.of("our programs had been removed from an interface and are attached again")
    assert line == {"interface": "veth4", "programs": ["ipv4/pod_ingress"]}
    assert agent.attachments.restored == 1
    agent.second()
    assert attach_calls(agent) == [], "once"


def test_where_it_cannot_be_attached_again_it_is_said_and_tried_until_it_can(agent: Agent) -> None:
    agent.control.lost[4] = ["ipv4/pod_ingress"]
    agent.control.refusing.add(4)
    agent.tell_now(HooksChanged(frozenset({4})))
    agent.second()
    assert agent.loop.status()["interfaceProblems"] == ["Cannot attach to 4."]
    assert agent.attachments.restored == 0
    agent.control.refusing.clear()
    agent.second()
    assert attach_calls(agent) == ["attach pod 4"]
    assert agent.loop.status()["interfaceProblems"] == []


def test_a_change_at_an_interface_that_is_nothing_to_us(agent: Agent) -> None:
    agent.tell_now(HooksChanged(frozenset({77})))
    agent.second()
    assert agent.control.looks == []


def test_entries_of_interfaces_that_went_while_no_agent_ran() -> None:
    writer = Writer(Family.IPV4)
    writer.entries = {4: (3, 2), 99: (3, 2)}
    agent = Agent(writer)
    assert set(agent.writer.entries) == {2, 3, 4}
    assert "detach 99" in agent.writer.calls  # it may be there, only not as ours


AHEAD = "somebody else's program runs before ours and may end the chain"


def test_a_foreign_program_ahead_of_ours_is_reported(agent: Agent) -> None:
    agent.control.foreign = [Foreign("ingress", "other", "preference 1")]
    agent.tell(NetworkChanged(facts(VETH4, VETH5)))
    (line,) = agent.log.of(AHEAD)
    assert (line["interface"], line["direction"], line["program"]) == ("veth5", "ingress", "other")
    (sentence,) = agent.loop.hook_problems
    assert sentence.startswith("veth5, ingress: the program other runs before ours (preference 1)")
    assert agent.loop.status()["hookProblems"] == [sentence]
    assert agent.loop.problems == []  # it may well hand on what it gets


def test_one_that_comes_later_is_reported_once_and_until_it_goes(agent: Agent) -> None:
    """At hooks of which no event tells, too."""
    agent.control.foreign = [Foreign("egress", "other", "tcx, 1")]
    for _ in range(2):
        agent.control.unheard = {4}
        agent.second()
    assert len(agent.log.of(AHEAD)) == 1 and len(agent.loop.hook_problems) == 1
    agent.control.foreign = []
    agent.control.unheard = {4}
    agent.second()
    assert agent.loop.hook_problems == []


def test_what_is_gone_without_an_event_is_attached_again(agent: Agent) -> None:
    agent.control.lost[4] = ["ipv4/pod_ingress"]
    agent.control.unheard = {4}
    agent.second()
    assert agent.attachments.restored == 1


def test_a_second_address_of_the_bridge_changes_nothing(agent: Agent) -> None:
    entries = dict(agent.writer.entries)
    second = Address(3, parse_address("10.9.9.9"), 0)
    agent.tell(NetworkChanged(facts(VETH4, more=(second,))))
    assert agent.writer.entries == entries


def numbers_of(held: dict[int, bytes], clock: Clock | None = None) -> SourceNumbers:
    return SourceNumbers(held, clock or Clock(), REST_S)


def ten(last: int) -> bytes:
    return parse_address(f"10.0.0.{last}")


def test_numbers_of_sources_keep_their_meaning() -> None:
    numbers = numbers_of({1: ten(3), 2: ten(1), 7: ten(2)})  # 1: the preferred address, besides
    third = numbers.number(ten(3))
    assert third not in (0, 1, 2, 7)
    assert [numbers.number(ten(one)) for one in (2, 3, 1, 3)] == [7, third, 2, third]


def test_without_a_number_left_the_preferred_address_has_to_do() -> None:
    numbers = numbers_of({})
    assert {numbers.number(ten(last)) for last in range(254)} == set(range(2, 256))
    assert numbers.number(ten(255)) == 0


def test_a_number_rests_when_its_address_is_lost() -> None:
    """Flows have it: it must not become another address."""
    clock = Clock()
    numbers = numbers_of({}, clock)
    given = [numbers.number(ten(last)) for last in range(254)]
    assert numbers.lose([ten(last) for last in range(1, 254)]) == [given[0]]
    assert numbers.number(ten(254)) == 0
    assert numbers.number(ten(0)) == given[0]  # it is back, and so are its flows
    numbers.lose([ten(last) for last in range(1, 254)])
    clock.now += REST_S - 1
    assert numbers.number(ten(254)) == 0
    clock.now += 2
    assert numbers.number(ten(254)) == given[0]


def test_an_agent_that_starts_hardly_hits_upon_what_rests() -> None:
    """It finds all zeroes, whether a number was given before or never."""
    before = numbers_of({}).number(ten(1))
    assert numbers_of({}).number(ten(1)) == before
    assert sum(numbers_of({}).number(ten(last)) == before for last in range(2, 255)) < 5


def test_what_is_masqueraded_with_an_address_that_the_node_loses(agent: Agent) -> None:
    other = parse_address("192.0.2.77")
    assert set(agent.writer.sources.values()) == {NODE4, POD4}
    number = next(n for n, a in agent.writer.sources.items() if a == POD4)
    moved = facts(VETH4)
    moved = replace(moved, addresses=(*moved.addresses[:1], Address(3, other, 0)))
    agent.tell(NetworkChanged(moved))
    assert agent.writer.sources.get(number) is None
    assert agent.writer.entries[4][1] != number
    assert agent.writer.sources[agent.writer.entries[4][1]] == other
    # another agent finds it gone, too
    agent.tell(NetworkChanged(replace(moved, addresses=moved.addresses[1:])))
    assert NODE_SOURCE_ID not in agent.writer.sources
    assert set(agent.writer.sources.values()) == {other}


def test_an_address_that_went_while_no_agent_ran() -> None:
    writer = Writer(Family.IPV4)
    writer.sources = {1: NODE4, 9: NODE4, 44: parse_address("192.0.2.9")}
    agent = Agent(writer)
    assert 44 not in agent.writer.sources and agent.writer.sources[9] == NODE4


def test_neighbours_are_looked_after_at_uplinks_and_on_pods_bridges(agent: Agent) -> None:
    """On either, packets of ours go to neighbours that the stack sends nothing to."""
    assert agent.attachments.neighbourhoods == {2, 3}

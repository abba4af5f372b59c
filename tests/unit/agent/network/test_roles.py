"""Which interfaces are whose: nodes as CNIs and machines build them."""

import pytest

from ebpf_lb.agent.config import POD_INTERFACES
from ebpf_lb.agent.network.roles import (
    Address,
    Facts,
    Interface,
    Link,
    NetworkView,
    Patterns,
    Role,
    view,
)
from ebpf_lb.model.values import Family, parse_address

NODE4, NODE6 = parse_address("172.30.0.11"), parse_address("fd30::11")
POD4, POD6 = parse_address("10.244.1.1"), parse_address("fd00:10:244:1::1")

LO = Link(1, "lo", "", 0, False)
ETH0_NIC = Link(2, "eth0", "", 0, False)
ETH0_VETH = Link(2, "eth0", "veth", 0, True)  # a node that is itself a namespace
CNI0 = Link(3, "cni0", "bridge", 0, False)
BY_ETH0 = frozenset({(Family.IPV4, 2), (Family.IPV6, 2)})
OF_ETH0 = (Address(2, NODE4, 0), Address(2, NODE6, 0))
OF_CNI0 = (Address(3, POD4, 0), Address(3, POD6, 0))


def veth(index: int, name: str, master: int = 0, *, peer_elsewhere: bool = True) -> Link:
    return Link(index, name, "veth", master, peer_elsewhere)


def look(
    *links: Link,
    addresses: tuple[Address, ...] = OF_ETH0,
    routes: frozenset[tuple[Family, int]] = BY_ETH0,
    node: tuple[bytes, ...] = (NODE4, NODE6),
) -> NetworkView:
    facts = Facts({link.index: link for link in links}, addresses, routes)
    return view(facts, Patterns(POD_INTERFACES), node)


def roles(seen: NetworkView) -> dict[str, Role]:
    """All but loopback's, which is always the same."""
    return {one.name: one.role for one in seen.interfaces.values() if one.role is not Role.LOOPBACK}


def test_loopback_is_a_way_of_its_own() -> None:
    """Whatever addresses are on it, nothing is masqueraded towards it."""
    seen = look(LO, ETH0_NIC, addresses=(*OF_ETH0, Address(1, parse_address("192.0.2.7"), 0)))
    assert seen.interfaces[1] == Interface(1, "lo", Role.LOOPBACK, 0, ())
    assert Role.LOOPBACK.has_programs


def test_only_a_pods_interface_may_hand_packets_to_its_peer() -> None:
    """An uplink may be one of a pair as well, in a node that is itself a namespace."""
    pod = Link(7, "veth7", "veth", 0, True)
    seen = look(LO, ETH0_VETH, pod, addresses=OF_ETH0)
    assert {one.name for one in seen.interfaces.values() if one.peer} == {"veth7"}


def test_loopback_may_be_ignored() -> None:
    facts = Facts({1: LO, 2: ETH0_NIC}, OF_ETH0, BY_ETH0)
    patterns = Patterns(POD_INTERFACES, ignored=("lo",))
    assert set(view(facts, patterns, (NODE4, NODE6)).interfaces) == {2}


@pytest.mark.parametrize("eth0", [ETH0_NIC, ETH0_VETH], ids=["machine", "namespace"])
def test_bridge_cni(eth0: Link) -> None:
    seen = look(LO, eth0, CNI0, veth(4, "veth1a2b3c4d", 3), addresses=OF_ETH0 + OF_CNI0)
    assert roles(seen) == {"eth0": Role.UPLINK, "cni0": Role.BRIDGE, "veth1a2b3c4d": Role.POD}
    pod = seen.interfaces[4]
    assert (pod.bridge, pod.sources) == (3, (POD4, POD6))
    uplink = seen.interfaces[2]
    assert (uplink.bridge, uplink.sources) == (0, (NODE4, NODE6))
    assert seen.primary == (NODE4, NODE6)
    assert seen.addresses == tuple(sorted((NODE4, NODE6, POD4, POD6)))


def test_point_to_point_cni_gives_the_gateways_address_to_each() -> None:
    seen = look(
        LO, ETH0_VETH, veth(4, "vetha"), veth(5, "vethb"),
        addresses=(*OF_ETH0, Address(4, POD4, 0), Address(5, POD4, 0)),
    )  # fmt: skip
    assert roles(seen) == {"eth0": Role.UPLINK, "vetha": Role.POD, "vethb": Role.POD}
    # IPv6 has no address there: the kernel takes another of the node's
    assert seen.interfaces[4].sources == (POD4, NODE6)
    assert seen.interfaces[4].bridge == 0


def test_an_uplink_may_be_called_like_a_pods_interface() -> None:
    uplink = veth(2, "veth0")
    assert roles(look(uplink, node=())) == {"veth0": Role.UPLINK}  # by its default route
    assert roles(look(uplink, routes=frozenset())) == {"veth0": Role.UPLINK}  # by its address
    assert roles(look(uplink, routes=frozenset(), node=(), addresses=())) == {"veth0": Role.POD}


def test_what_is_no_pods() -> None:
    seen = look(
        LO, ETH0_NIC, CNI0,
        veth(4, "veth1", peer_elsewhere=False),  # both ends here
        veth(5, "wan0"),  # another name
        Link(6, "veth6", "dummy", 0, False),
        Link(7, "vethtap", "tun", 0, True),
    )  # fmt: skip
    assert roles(seen) == {"eth0": Role.UPLINK}


@pytest.mark.parametrize(
    ("name", "kind"),
    [("cali12345", "veth"), ("lxc0a1b", "veth"), ("lxc0a1b", "netkit"), ("eni1f2", "veth"),
     ("gke9", "veth"), ("azv1", "veth")],
)  # fmt: skip
def test_other_cnis(name: str, kind: str) -> None:
    link = Link(9, name, kind, 0, True)
    seen = look(ETH0_NIC, link)
    assert seen.interfaces[9].role is Role.POD
    assert seen.interfaces[9].sources == (NODE4, NODE6)


def test_a_master_that_is_no_bridge() -> None:
    seen = look(ETH0_NIC, Link(3, "vrf1", "vrf", 0, False), veth(4, "veth1", 3))
    assert seen.interfaces[4].bridge == 0


def test_sources_that_do_not_last_are_second_choice() -> None:
    link_local, passing = parse_address("fe80::1"), parse_address("fd00::dead")
    addresses = (
        Address(3, link_local, 253),
        Address(3, passing, 0, passing=True),
        Address(3, POD6, 0),
    )
    seen = look(ETH0_NIC, CNI0, veth(4, "veth1", 3), addresses=OF_ETH0 + addresses)
    assert seen.interfaces[4].source(Family.IPV6) == POD6
    seen = look(ETH0_NIC, CNI0, veth(4, "veth1", 3), addresses=OF_ETH0 + addresses[:2])
    assert seen.interfaces[4].source(Family.IPV6) == passing


def test_primary_addresses_before_the_node_object_is_known() -> None:
    assert look(ETH0_NIC, CNI0, addresses=OF_CNI0 + OF_ETH0, node=()).primary == (NODE4, NODE6)
    # an address that the node does not hold cannot be a source
    assert look(ETH0_NIC, node=(parse_address("192.0.2.1"),)).primary == (NODE4, NODE6)
    assert look(ETH0_NIC, node=(), routes=frozenset()).primary == ()

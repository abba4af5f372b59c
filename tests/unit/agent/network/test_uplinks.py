"""Which interfaces are uplinks, and what address the node has behind each."""

from dataclasses import replace

import pytest

from ebpf_lb.agent.config import POD_INTERFACES
from ebpf_lb.agent.network.roles import (
    Address,
    Facts,
    Framing,
    Link,
    NetworkView,
    Patterns,
    Role,
    view,
)
from ebpf_lb.model.values import Family, Network, parse_address, parse_network

IPV4, IPV6 = Family.IPV4, Family.IPV6
LO = Link(1, "lo", "", 0, False)
PODS = (parse_network("10.244.0.0/16"), parse_network("fd00:10:244::/48"))
OTHERS = Patterns(POD_INTERFACES)


def on(index: int, *texts: str, **fields: bool) -> tuple[Address, ...]:
    return tuple(Address(index, parse_address(text), 0, **fields) for text in texts)


def look(
    *links: Link,
    addresses: tuple[Address, ...] = (),
    routes: tuple[int, ...] = (),
    node: tuple[str, ...] = (),
    patterns: Patterns = OTHERS,
    pods: tuple[Network, ...] | None = PODS,
) -> NetworkView:
    """`routes`: by which default routes of both families leave."""
    loopback = (Address(1, parse_address("127.0.0.1"), 254), Address(1, bytes(15) + b"\1", 254))
    facts = Facts(
        {link.index: link for link in (LO, *links)},
        loopback + addresses,
        frozenset((family, index) for index in routes for family in Family),
    )
    return view(facts, patterns, tuple(map(parse_address, node)), pods)


def roles(seen: NetworkView) -> dict[str, str]:
    """All but loopback's, which is always the same."""
    found = {one.name: one.role.value for one in seen.interfaces.values()}
    assert found.pop("lo") == "loopback"
    return found


def source(seen: NetworkView, name: str, family: Family) -> bytes | None:
    (found,) = [one for one in seen.interfaces.values() if one.name == name]
    return found.source(family)


def is_(text: str) -> bytes:
    return parse_address(text)


# the lab's and the rig's nodes: namespaces, whose eth0 is one end of a pair

ETH0 = Link(2, "eth0", "veth", 0, True)
ON_ETH0 = on(2, "172.30.0.11", "fd30::11")
NODE = ("172.30.0.11", "fd30::11")
CNI0 = Link(3, "cni0", "bridge", 0, False)
ON_CNI0 = on(3, "10.244.1.1", "fd00:10:244:1::1")


@pytest.mark.parametrize("node", [NODE, ()], ids=["node-known", "node-unknown"])
@pytest.mark.parametrize("routes", [(2,), ()], ids=["default-route", "no-route"])
def test_bridge_to_pods(node: tuple[str, ...], routes: tuple[int, ...]) -> None:
    seen = look(
        ETH0, CNI0, Link(4, "veth1a2b", "veth", 3, True),
        addresses=ON_ETH0 + ON_CNI0, node=node, routes=routes,
    )  # fmt: skip
    assert roles(seen) == {"eth0": "uplink", "cni0": "bridge", "veth1a2b": "pod"}
    assert source(seen, "eth0", IPV4) == is_("172.30.0.11")
    assert source(seen, "cni0", IPV6) == is_("fd00:10:244:1::1")
    assert seen.interfaces[3].bridge == 0


@pytest.mark.parametrize("name", ["veth9", "pod-a"], ids=["known-name", "unknown-name"])
def test_point_to_point_to_pods(name: str) -> None:
    gateway = on(4, "10.244.1.1", "fd00:10:244:1::1", alone=True)
    seen = look(
        ETH0, Link(4, name, "veth", 0, True), addresses=ON_ETH0 + gateway, node=NODE, routes=(2,)
    )
    # with the pods' gateway's address on it, one that we do not know is still no uplink
    assert roles(seen).get(name) == ("pod" if name == "veth9" else None)
    assert roles(seen)["eth0"] == "uplink"
    if name == "veth9":
        assert source(seen, name, IPV6) == is_("fd00:10:244:1::1")


def test_a_bridge_without_pods_is_nothing() -> None:
    docker0 = Link(5, "docker0", "bridge", 0, False)
    seen = look(ETH0, CNI0, docker0, addresses=ON_ETH0 + ON_CNI0 + on(5, "172.17.0.1"), node=NODE)
    assert roles(seen) == {"eth0": "uplink"}
    # containers of another kind on it, called otherwise
    seen = look(ETH0, docker0, Link(6, "tap0", "tun", 5, False), addresses=on(5, "172.17.0.1"))
    assert roles(seen) == {}


# tunnels between nodes

FLANNEL = Link(5, "flannel.1", "vxlan", 0, False)


def test_a_tunnel_has_its_own_address_or_the_nodes() -> None:
    overlay = on(5, "10.244.1.0", alone=True)
    seen = look(ETH0, FLANNEL, addresses=ON_ETH0 + overlay, node=NODE, routes=(2,))
    assert roles(seen) == {"eth0": "uplink", "flannel.1": "uplink"}
    assert source(seen, "flannel.1", IPV4) == is_("10.244.1.0")
    assert source(seen, "flannel.1", IPV6) == is_("fd30::11")
    assert source(seen, "eth0", IPV4) == is_("172.30.0.11")


@pytest.mark.parametrize(
    ("name", "kind"), [("genev_sys_6081", "geneve"), ("cilium_vxlan", "vxlan"), ("gre1", "gretap")]
)
def test_a_tunnel_without_address(name: str, kind: str) -> None:
    seen = look(ETH0, Link(5, name, kind, 0, False), addresses=ON_ETH0, node=NODE)
    assert roles(seen)[name] == "uplink"
    assert source(seen, name, IPV4) == is_("172.30.0.11")


BARE = {"framing": Framing.NONE}


@pytest.mark.parametrize(
    ("name", "kind"), [("tunl0", "ipip"), ("flannel-wg", "wireguard"), ("gre1", "gre")]
)
def test_tunnels_without_ethernet_frames(name: str, kind: str) -> None:
    """Some CNIs give them an address, others do not. The modules' own devices are down."""
    down = Link(5, name, kind, 0, False, up=False, **BARE)
    assert roles(look(ETH0, down, addresses=ON_ETH0, node=NODE)) == {"eth0": "uplink"}
    device = replace(down, up=True)
    for own, expected in (((), "172.30.0.11"), (on(5, "10.244.1.0"), "10.244.1.0")):
        seen = look(ETH0, device, addresses=ON_ETH0 + own, node=NODE)
        assert roles(seen) == {"eth0": "uplink", name: "uplink"}
        assert source(seen, name, IPV4) == is_(expected)
        assert seen.interfaces[5].programs == "l3"
        assert seen.interfaces[5].xdp is None
        assert seen.interfaces[2].programs == "uplink"


@pytest.mark.parametrize(("name", "kind"), [("tun0", "tun"), ("ppp0", "ppp"), ("wwan0", "")])
def test_others_without_ethernet_frames_need_an_address(name: str, kind: str) -> None:
    device = Link(5, name, kind, 0, False, **BARE)
    assert roles(look(ETH0, device, addresses=ON_ETH0)) == {"eth0": "uplink"}
    seen = look(ETH0, device, addresses=ON_ETH0 + on(5, "10.9.0.1"))
    assert roles(seen)[name] == "uplink"
    assert seen.interfaces[5].programs == "l3"


@pytest.mark.parametrize(
    ("device", "sentence"),
    [
        (
            Link(5, "ib0", "", 0, False, framing=Framing.OTHER),
            "ib0: not served, an uplink with frames of an unknown kind",
        ),
        (
            Link(5, "veth9", "veth", 0, True, **BARE),
            "veth9: not served, a pod with packets without link header",
        ),
    ],
)
def test_what_cannot_be_served_is_named(device: Link, sentence: str) -> None:
    seen = look(ETH0, device, addresses=ON_ETH0 + on(5, "10.9.0.1"))
    assert roles(seen) == {"eth0": "uplink"}
    assert seen.unserved == (sentence,)


# machines with more than one way out


def test_several_nics() -> None:
    nics = (Link(2, "ens3", "", 0, False), Link(3, "ens4", "", 0, False))
    seen = look(
        *nics, Link(4, "ens5", "", 0, False),
        addresses=(*on(2, "192.0.2.5"), *on(3, "198.51.100.5", "2001:db8::5")),
        routes=(2,), node=("192.0.2.5",),
    )  # fmt: skip
    assert roles(seen) == {"ens3": "uplink", "ens4": "uplink"}  # ens5 leads nowhere
    assert source(seen, "ens3", IPV4) == is_("192.0.2.5")
    assert source(seen, "ens4", IPV4) == is_("198.51.100.5")
    assert source(seen, "ens4", IPV6) == is_("2001:db8::5")
    assert seen.primary[0] == is_("192.0.2.5")


def test_a_bond_a_vlan_and_a_second_pair_of_a_machine_in_a_namespace() -> None:
    links = (
        Link(2, "ens3", "", 4, False),
        Link(3, "ens4", "", 4, False),
        Link(4, "bond0", "bond", 0, False),
        Link(5, "bond0.7", "vlan", 0, False),
        Link(6, "eth1", "veth", 0, True),
    )
    addresses = (*on(4, "192.0.2.5"), *on(5, "198.51.100.5"), *on(6, "203.0.113.5"))
    seen = look(*links, addresses=addresses, routes=(4,))
    assert roles(seen) == {"bond0": "uplink", "bond0.7": "uplink", "eth1": "uplink"}


BRIDGE_MAC = bytes.fromhex("0200000000b0")
NIC_MAC = bytes.fromhex("020000000001")


@pytest.mark.parametrize("routes", [(), (3,)])
@pytest.mark.parametrize("kind", ["", "bond", "vlan"])
def test_behind_a_bridge_its_nic_is_the_uplink(kind: str, routes: tuple[int, ...]) -> None:
    """Hosts of virtual machines: the node's address is on the bridge. But its netfilter sees what
    comes before the bridge's own hooks do."""
    links = (
        Link(2, "ens3", kind, 3, False, mac=NIC_MAC),
        Link(3, "vmbr0", "bridge", 0, False, mac=BRIDGE_MAC),
        Link(4, "tap7", "tun", 3, False),
        Link(5, "vnet0", "veth", 3, False),  # to another bridge of this machine
    )
    seen = look(*links, addresses=on(3, "192.0.2.5"), routes=routes)
    assert roles(seen) == {"ens3": "uplink", "vmbr0": "bridge"}
    assert source(seen, "ens3", IPV4) == source(seen, "vmbr0", IPV4) == is_("192.0.2.5")
    nic = seen.interfaces[2]
    assert (nic.bridge, nic.mac, nic.xdp) == (3, BRIDGE_MAC, None)
    assert roles(look(*links)) == {}


def test_a_bridge_to_the_outside_with_pods_on_it() -> None:
    links = (
        Link(2, "ens3", "", 3, False),
        Link(3, "br0", "bridge", 0, False),
        Link(4, "veth12", "veth", 3, True),
    )
    seen = look(*links, addresses=on(3, "192.0.2.5"), routes=(3,))
    assert roles(seen) == {"ens3": "uplink", "br0": "bridge", "veth12": "pod"}
    assert seen.interfaces[4].bridge == 3


def test_a_machine_in_a_namespace_behind_a_bridge_of_its_own() -> None:
    """Its NIC is one end of a pair, and so is a pod's."""
    links = (
        Link(2, "eth0", "veth", 3, True),
        Link(3, "br0", "bridge", 0, False),
        Link(4, "veth12", "veth", 3, True),
    )
    seen = look(*links, addresses=on(3, "192.0.2.5"), routes=(3,))
    assert roles(seen) == {"eth0": "uplink", "br0": "bridge", "veth12": "pod"}


def test_a_way_out_without_a_port_that_leads_there_is_the_bridge_itself() -> None:
    links = (
        Link(3, "br0", "bridge", 0, False),
        Link(4, "veth12", "veth", 3, True),
        Link(5, "vnet0", "veth", 3, False),
    )
    seen = look(*links, addresses=on(3, "192.0.2.5"), routes=(3,))
    assert roles(seen) == {"br0": "uplink", "veth12": "pod"}


def test_a_nic_in_a_vrf() -> None:
    """The cluster knows its address; its routes are in a table of their own."""
    links = (Link(2, "ens3", "", 7, False), Link(7, "blue", "vrf", 0, False))
    seen = look(*links, addresses=on(2, "192.0.2.5"), node=("192.0.2.5",))
    assert roles(seen) == {"ens3": "uplink"}
    assert seen.interfaces[2].bridge == 0


def test_what_leads_nowhere() -> None:
    links = (
        Link(5, "kube-ipvs0", "dummy", 0, False),
        Link(6, "nodelocaldns", "dummy", 0, False),
        Link(7, "blue", "vrf", 0, False),
        Link(8, "cilium_host", "veth", 0, False),
        Link(9, "cilium_net", "veth", 0, False),
    )
    addresses = tuple(one for index in range(5, 10) for one in on(index, f"10.9.0.{index}"))
    assert roles(look(ETH0, *links, addresses=ON_ETH0 + addresses, node=NODE)) == {"eth0": "uplink"}


def test_the_nodes_address_on_loopback() -> None:
    """Routing on the host: NICs have link-local addresses only."""
    nics = (Link(2, "ens3", "", 0, False), Link(3, "ens4", "", 0, False))
    link_local = tuple(Address(i, parse_address(f"fe80::{i}"), 253) for i in (2, 3))
    own = on(1, "192.0.2.5", "2001:db8::5", alone=True)
    seen = look(*nics, addresses=own + link_local, routes=(2, 3), node=("192.0.2.5", "2001:db8::5"))
    assert roles(seen) == {"ens3": "uplink", "ens4": "uplink"}
    for name in ("ens3", "ens4"):
        assert source(seen, name, IPV4) == is_("192.0.2.5")
        assert source(seen, name, IPV6) == is_("2001:db8::5")


def test_names_in_the_configuration_have_the_last_word() -> None:
    links = (ETH0, Link(5, "docker0", "bridge", 0, False), Link(6, "trunk", "", 0, False))
    addresses = ON_ETH0 + on(5, "172.17.0.1")
    patterns = Patterns(POD_INTERFACES, uplinks=("docker*", "trunk"), ignored=("eth0",))
    seen = look(*links, addresses=addresses, node=NODE, routes=(2,), patterns=patterns)
    assert roles(seen) == {"docker0": "uplink", "trunk": "uplink"}


# of several addresses


def test_the_address_by_which_the_cluster_knows_the_node_is_preferred() -> None:
    nic = Link(2, "ens3", "", 0, False)
    addresses = on(2, "10.0.2.15", "192.168.56.10")
    assert source(look(nic, addresses=addresses), "ens3", IPV4) == is_("10.0.2.15")
    seen = look(nic, addresses=addresses, node=("192.168.56.10",))
    assert source(seen, "ens3", IPV4) == is_("192.168.56.10")


def test_an_address_that_moves_between_machines_is_no_source_while_there_is_another() -> None:
    nic = Link(2, "ens3", "", 0, False)
    virtual, own = on(2, "2001:db8::100", alone=True), on(2, "2001:db8::5")
    assert source(look(nic, addresses=virtual + own), "ens3", IPV6) == is_("2001:db8::5")
    assert source(look(nic, addresses=virtual), "ens3", IPV6) == is_("2001:db8::100")


def test_every_own_address_is_known() -> None:
    seen = look(ETH0, CNI0, addresses=ON_ETH0 + ON_CNI0, node=NODE)
    texts = ("127.0.0.1", "::1", "172.30.0.11", "fd30::11", "10.244.1.1", "fd00:10:244:1::1")
    assert set(seen.addresses) == set(map(parse_address, texts))
    assert seen.pod_networks == PODS


def test_roles_name_programs() -> None:
    assert [role.value for role in Role if role.has_programs] == ["pod", "uplink", "loopback"]

"""Outside of the cluster: the cloud's addresses, the router's ways, and clients that use them."""

import re
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from ebpf_lb.lab.cluster import Lab
from tests.lab.conftest import Room
from tests.support.checker import SETTLED_S, Reaches, SourceSeen, expect
from tests.support.manifests import Manifest, deployment, service

Cli = Callable[..., Any]
CLIENT = {"ipv4": "172.31.0.2", "ipv6": "fd31::2"}
each_family = pytest.mark.parametrize("family", ["ipv4", "ipv6"])


def balanced(name: str, **spec: Any) -> Manifest:
    return service(name, protocols=("TCP", "UDP"), **{"type": "LoadBalancer", **spec})


def until(wanted: Callable[[], Any], what: str, within_s: float = SETTLED_S) -> Any:
    """What `wanted` yields, as soon as it is true."""
    deadline = time.monotonic() + within_s
    while not (found := wanted()):
        assert time.monotonic() < deadline, what
        time.sleep(0.02)
    return found


def ingress(room: Room, name: str) -> list[str]:
    path = f"/api/v1/namespaces/{room.namespace}/services/{name}"
    status = room.lab.client.get(path)["status"]
    return [each["ip"] for each in status["loadBalancer"].get("ingress") or []]


def given(room: Room, name: str, count: int = 2) -> list[str]:
    """A Service's addresses, once it has that many."""
    until(lambda: len(ingress(room, name)) == count, f"{name} has not {count} addresses")
    return ingress(room, name)


def gateways(lab: Lab, address: str) -> set[str]:
    """Where the router's kernel sends it."""
    family = "-6" if ":" in address else "-4"
    listed = lab.exec("router", ["ip", family, "route", "show", address], check=True).stdout
    return set(re.findall(r"via (\S+)", listed))


def nodes_of(lab: Lab, address: str, nodes: set[str]) -> None:
    """Waits until the router sends an address to exactly these nodes."""
    version6 = ":" in address
    wanted = {a for n in lab.nodes() if n.name in nodes for a in n.addresses
              if (":" in a) == version6}  # fmt: skip
    until(
        lambda: gateways(lab, address) == wanted,
        f"{address} does not go to {sorted(nodes)} but by {gateways(lab, address)}",
    )


def target(address: str, port: int = 80, protocol: str = "tcp") -> str:
    return f"[{address}]:{port}/{protocol}" if ":" in address else f"{address}:{port}/{protocol}"


@pytest.fixture
def web(room: Room) -> Room:
    """Two pods on node1."""
    room.apply(deployment("web", replicas=2, node="node1"))
    return room


# --- addresses


def test_addresses_of_both_families_come_and_go(room: Room) -> None:
    room.apply(balanced("one"), balanced("two"))
    one, two = given(room, "one"), given(room, "two")
    assert one[0].startswith("172.29.0.") and one[1].startswith("fd29::")
    assert not set(one) & set(two)
    room.apply(balanced("one", type="ClusterIP"))
    until(lambda: not ingress(room, "one"), "a ClusterIP keeps its external addresses")
    for address in one:
        until(lambda a=address: not gateways(room.lab, a), f"the route to {address} stays")
    room.apply(balanced("three", loadBalancerIP=one[0]))
    assert given(room, "three")[0] == one[0]  # it is free again


def test_an_address_that_is_taken_is_refused_by_an_event(room: Room) -> None:
    room.apply(balanced("first", loadBalancerIP="172.29.0.77"))
    assert given(room, "first")[0] == "172.29.0.77"
    room.apply(balanced("second", loadBalancerIP="172.29.0.77"))
    path = f"/api/v1/namespaces/{room.namespace}/events"

    def complaint() -> bool:
        events = room.lab.client.get(path)["items"]
        return any(
            event["involvedObject"]["name"] == "second" and "172.29.0.77" in event["message"]
            for event in events
        )

    until(complaint, "no event tells why")
    assert "172.29.0.77" not in ingress(room, "second")


def test_another_balancers_services_and_a_status_by_hand_are_left_alone(room: Room) -> None:
    room.apply(balanced("other", loadBalancerClass="example.com/other"), balanced("own"))
    given(room, "own")
    path = f"/api/v1/namespaces/{room.namespace}/services/own/status"
    by_hand = {"status": {"loadBalancer": {"ingress": [{"ip": "203.0.113.9"}]}}}
    room.lab.client.patch(path, by_hand)
    room.apply(balanced("later"))
    given(room, "later")  # the cloud has seen all that was before
    assert ingress(room, "other") == []
    assert ingress(room, "own") == ["203.0.113.9"]
    nodes_of(room.lab, "203.0.113.9", {"node1", "node2", "node3"})


# --- ways


def test_a_node_that_is_not_ready_is_taken_out_and_put_in_again(room: Room) -> None:
    room.apply(balanced("web", externalIPs=["198.51.100.7"]))
    addresses = [*given(room, "web"), "198.51.100.7"]

    def set_ready(status: str) -> None:
        condition = {"type": "Ready", "status": status, "reason": "Test", "message": "a test's"}
        patch = {"status": {"conditions": [condition]}}
        room.lab.client.patch("/api/v1/nodes/node2/status", patch)

    for address in addresses:
        nodes_of(room.lab, address, {"node1", "node2", "node3"})
    set_ready("False")
    try:
        for address in addresses:
            nodes_of(room.lab, address, {"node1", "node3"})
    finally:
        set_ready("True")
    for address in addresses:
        nodes_of(room.lab, address, {"node1", "node2", "node3"})


def test_policy_local_goes_where_pods_are_and_follows_them(web: Room) -> None:
    web.apply(balanced("web", externalTrafficPolicy="Local"))
    for address in given(web, "web"):
        nodes_of(web.lab, address, {"node1"})
    web.apply(deployment("web", replicas=2, node="node3"))
    for address in given(web, "web"):
        nodes_of(web.lab, address, {"node3"})


def test_a_route_can_be_pinned(room: Room, cli: Cli) -> None:
    room.apply(balanced("web"))
    for address in given(room, "web"):
        done = cli("route", address, "node3")
        assert (done.returncode, done.stderr) == (0, "")
        assert done.stdout.splitlines()[1].split() == [address, "node3", "pinned"]
        nodes_of(room.lab, address, {"node3"})
        assert re.search(rf"(?m)^{re.escape(address)} +node3 +pinned$", cli("route").stdout)
        assert cli("route", address, "auto").returncode == 0
        nodes_of(room.lab, address, {"node1", "node2", "node3"})


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("203.0.113.99", "node1"), "no Service has the external address 203.0.113.99"),
        (("203.0.113.99", "node9"), "has no node 'node9'"),
        (("nonsense", "node1"), "'nonsense' is not an IP address"),
        (("203.0.113.99",), "say where to"),
    ],
)
def test_a_route_that_cannot_be_is_explained(cli: Cli, words: tuple[str, ...], said: str) -> None:
    done = cli("route", *words)
    assert done.returncode != 0
    assert said in done.stderr


# --- clients


@pytest.fixture(scope="module")
def served(shared_room: Room) -> Iterator[Room]:
    shared_room.apply(
        deployment("web", replicas=2, node="node1"),
        balanced("web", externalIPs=["198.51.100.8", "2001:db8::8"]),
        balanced("local", app="web", externalTrafficPolicy="Local"),
    )
    for name in ("web", "local"):
        given(shared_room, name)
    yield shared_room


@each_family
@pytest.mark.parametrize("protocol", ["tcp", "udp"])
def test_a_client_reaches_a_load_balancer(served: Room, family: str, protocol: str) -> None:
    address = given(served, "web")[family == "ipv6"]
    pods = frozenset(served.pods("web"))
    expect(served.lab, "client", target(address, protocol=protocol), Reaches(pods))


@each_family
def test_a_client_reaches_an_external_ip(served: Room, family: str) -> None:
    address = "198.51.100.8" if family == "ipv4" else "2001:db8::8"
    expect(served.lab, "client", target(address), Reaches(frozenset(served.pods("web"))))


@each_family
def test_policy_local_keeps_the_client(served: Room, family: str) -> None:
    address = given(served, "local")[family == "ipv6"]
    nodes_of(served.lab, address, {"node1"})
    expect(served.lab, "client", target(address), SourceSeen({CLIENT[family]}))


@each_family
def test_connections_are_spread_over_the_nodes_by_flow(served: Room, family: str) -> None:
    """What is not on node1 has that node's address to the pods, which are all on node1."""
    address = given(served, "web")[family == "ipv6"]
    nodes_of(served.lab, address, {"node1", "node2", "node3"})
    version6 = family == "ipv6"
    others = {a for node in served.lab.nodes() if node.name != "node1" for a in node.addresses
              if (":" in a) == version6}  # fmt: skip
    seen = SourceSeen({CLIENT[family], *others}, tries=40)
    expect(served.lab, "client", target(address), seen)


# --- SCTP


@each_family
@pytest.mark.parametrize("node", ["node1", "node2"], ids=["local-backend", "remote-backend"])
def test_sctp_by_a_node_port(room: Room, family: str, node: str) -> None:
    """The port changes there and back, and the CRC32c over all of the packet with it; to another
    node the source does as well."""
    web = service("web", protocols=("SCTP",), type="NodePort")
    web["spec"]["ports"][0]["nodePort"] = 31132
    room.apply(deployment("web", replicas=2, node="node1"), web)
    addresses = {n.name: next(a for a in n.addresses if (":" in a) == (family == "ipv6"))
                 for n in room.lab.nodes()}  # fmt: skip
    to = target(addresses[node], 31132, "sctp")
    expect(room.lab, "client", to, Reaches(frozenset(room.pods("web"))))
    seen = CLIENT[family] if node == "node1" else addresses[node]
    expect(room.lab, "client", to, SourceSeen({seen}))

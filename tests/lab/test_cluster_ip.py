"""ClusterIPs from pods and nodes, in both families, by TCP, UDP and SCTP, whatever the way from
client to backend: another node, the same node, the same bridge, the client itself, the node."""

from dataclasses import dataclass

import pytest

from tests.lab.conftest import Room
from tests.support.checker import Reaches, Refused, SourceSeen, SticksToOneOf, expect, probe
from tests.support.manifests import cluster_ip, deployment, service

FAMILIES = ("ipv4", "ipv6")
PROTOCOLS = ("tcp", "udp", "sctp")
WEB, NEAR, FAR, SELF, EMPTY, STICKY, HOST, MOVED = range(1, 9)  # the Services' numbers


def at(number: int, family: str, protocol: str, port: int = 80) -> str:
    address = cluster_ip(number, family)
    return f"[{address}]:{port}/{protocol}" if family == "ipv6" else f"{address}:{port}/{protocol}"


@dataclass(frozen=True)
class Cluster:
    """What the tests of this file share. Both sources are on node1."""

    room: Room
    sources: dict[str, str]

    def names(self, app: str) -> frozenset[str]:
        """A deployment's pods, as they answer."""
        return frozenset(self.room.pods(app))


@pytest.fixture(scope="module")
def cluster(shared_room: Room) -> Cluster:
    shared_room.apply(
        deployment("web", replicas=3),
        deployment("near", replicas=2, node="node1"),
        deployment("far", replicas=2, node="node2"),
        deployment("client", node="node1"),
        deployment("host", node="node3", host_network=True, port=8181, protocols=("TCP", "UDP")),
        service("web", number=WEB),
        service("near", number=NEAR),
        service("far", number=FAR),
        service("self", number=SELF, app="client"),
        service("empty", number=EMPTY, app="nobody"),
        service("sticky", number=STICKY, app="web", sessionAffinity="ClientIP"),
        service("host", number=HOST, target_port=8181, protocols=("TCP", "UDP")),
        service("moved", number=MOVED, app="web", port=8080),
    )
    made = Cluster(shared_room, {"pod": shared_room.pod("client"), "node": "node1"})
    assert {pod.node for pod in shared_room.pods("web").values()} == {"node1", "node2", "node3"}
    expect(
        shared_room.lab,
        made.sources["pod"],
        at(MOVED, "ipv6", "udp", 8080),
        Reaches(made.names("web")),
    )
    return made


pytestmark = pytest.mark.usefixtures("bridge_netfilter")
each_family = pytest.mark.parametrize("family", FAMILIES)
each_protocol = pytest.mark.parametrize("protocol", PROTOCOLS)
# the socket hooks do not see raw sockets, by which these tests speak SCTP
each_socket_protocol = pytest.mark.parametrize("protocol", ("tcp", "udp"))


@each_protocol
@each_family
@pytest.mark.parametrize(
    ("app", "number"), [("web", WEB), ("near", NEAR), ("far", FAR)], ids=["all", "near", "far"]
)
def test_from_a_pod(cluster: Cluster, app: str, number: int, family: str, protocol: str) -> None:
    backends = cluster.names(app)
    expect(
        cluster.room.lab, cluster.sources["pod"], at(number, family, protocol), Reaches(backends)
    )


@each_socket_protocol
@each_family
@pytest.mark.parametrize(
    ("app", "number"), [("web", WEB), ("near", NEAR), ("far", FAR)], ids=["all", "near", "far"]
)
def test_from_a_node(cluster: Cluster, app: str, number: int, family: str, protocol: str) -> None:
    backends = cluster.names(app)
    expect(
        cluster.room.lab, cluster.sources["node"], at(number, family, protocol), Reaches(backends)
    )


@each_family
@pytest.mark.parametrize("source", ["pod", "node"])
def test_a_socket_that_is_not_connected_hears_from_whom_it_asked(
    cluster: Cluster, source: str, family: str
) -> None:
    to = at(WEB, family, "udp")
    expect(
        cluster.room.lab,
        cluster.sources[source],
        to,
        Reaches(cluster.names("web")),
        connected=False,
    )


@each_protocol
@each_family
def test_another_target_port(cluster: Cluster, family: str, protocol: str) -> None:
    """Also the checksums: SCTP's covers the ports."""
    expect(
        cluster.room.lab,
        cluster.sources["pod"],
        at(MOVED, family, protocol, 8080),
        Reaches(cluster.names("web")),
    )


@pytest.mark.rule("KI-8")
@each_socket_protocol
@each_family
@pytest.mark.parametrize("source", ["pod", "node"])
def test_a_backend_in_the_host_network(
    cluster: Cluster, source: str, family: str, protocol: str
) -> None:
    expect(
        cluster.room.lab,
        cluster.sources[source],
        at(HOST, family, protocol),
        Reaches(cluster.names("host")),
    )


@pytest.mark.rule("VE-14")
@each_protocol
@each_family
def test_hairpin(cluster: Cluster, family: str, protocol: str) -> None:
    """A pod that is its own backend sees an address of its node as the client."""
    lab, to = cluster.room.lab, at(SELF, family, protocol)
    [name] = cluster.room.pods("client")
    expect(lab, cluster.sources["pod"], to, Reaches({name}))
    [answer] = probe(lab, cluster.sources["pod"], to, request="clientip")
    assert answer.outcome == "answered"
    listed = lab.exec(cluster.sources["node"], ["ip", "-brief", "address"], check=True).stdout
    seen = answer.text.rpartition(":")[0].strip("[]")
    assert f" {seen}/" in listed, f"{seen} is not an address of the node"


@each_protocol
@each_family
@pytest.mark.parametrize(("app", "number"), [("near", NEAR), ("far", FAR)])
def test_a_pod_is_seen_as_itself(
    cluster: Cluster, app: str, number: int, family: str, protocol: str
) -> None:
    [pod] = cluster.room.pods("client").values()
    own = {a for a in pod.addresses if (":" in a) == (family == "ipv6")}
    expect(cluster.room.lab, cluster.sources["pod"], at(number, family, protocol), SourceSeen(own))


@each_protocol
@each_family
def test_no_endpoint_is_refused_at_once(cluster: Cluster, family: str, protocol: str) -> None:
    expect(cluster.room.lab, cluster.sources["pod"], at(EMPTY, family, protocol), Refused(tries=20))


@each_socket_protocol
@each_family
@pytest.mark.parametrize("connected", [True, False], ids=["connected", "unconnected"])
def test_no_endpoint_is_refused_on_a_node(
    cluster: Cluster, family: str, protocol: str, connected: bool
) -> None:
    to = at(EMPTY, family, protocol)
    expect(cluster.room.lab, cluster.sources["node"], to, Refused(), connected=connected)


@each_socket_protocol
@each_family
def test_session_affinity(cluster: Cluster, family: str, protocol: str) -> None:
    to = at(STICKY, family, protocol)
    for source in cluster.sources.values():
        expect(cluster.room.lab, source, to, SticksToOneOf(cluster.names("web")))


@each_protocol
@each_family
def test_what_is_no_service_is_left_alone(cluster: Cluster, family: str, protocol: str) -> None:
    """Pod to pod, on the same bridge and to another node."""
    for app in ("near", "far"):
        for name, pod in cluster.room.pods(app).items():
            [address] = [a for a in pod.addresses if (":" in a) == (family == "ipv6")]
            to = f"[{address}]:80/{protocol}" if family == "ipv6" else f"{address}:80/{protocol}"
            expect(cluster.room.lab, cluster.sources["pod"], to, Reaches({name}), tries=3)


@pytest.mark.rule("CO-23")
@each_family
@pytest.mark.parametrize("source", ["pod", "node"])
def test_a_datagram_of_eight_kilobytes(cluster: Cluster, source: str, family: str) -> None:
    text = "".join(f"{number:07d} " for number in range(1000)).strip()
    for number in (NEAR, FAR):
        to = at(number, family, "udp")
        expect(
            cluster.room.lab,
            cluster.sources[source],
            to,
            Reaches({text}),
            request=f"echo {text}",
            tries=5,
        )


@each_family
def test_one_port_of_the_client_to_two_services(cluster: Cluster, family: str) -> None:
    """Two virtual addresses with the same backends, asked from one UDP source port."""
    for number, port in ((WEB, 80), (MOVED, 8080)) * 3:
        to = at(number, family, "udp", port)
        answers = probe(cluster.room.lab, cluster.sources["pod"], to, source_port=4242)
        assert [answer.outcome for answer in answers] == ["answered"]

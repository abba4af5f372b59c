"""hostRouting: bpf, by real packets: everybody is served, and the node that translates does not see
them in its stack."""

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from ebpf_lb.lab.cluster import Lab
from ebpf_lb.lab.options import Options
from tests.lab.conftest import Room, own_lab, room_in
from tests.support import stream
from tests.support.checker import Reaches, SourceSeen, expect
from tests.support.manifests import cluster_ip, deployment, service

FAMILIES = ("ipv4", "ipv6")
NEAR_PORT, FAR_PORT, MIRROR_PORT, MIRROR_NODE_PORT = 31701, 31702, 9000, 31703
CLUSTER_IPS = {"near": 171, "far": 172}
STREAM = [sys.executable, str(Path(stream.__file__))]
COUNT = """
table inet seen {
 chain forward {
  type filter hook forward priority 0
  %s dport 80 counter
  %s sport 80 counter
 }
}
"""

each_family = pytest.mark.parametrize("family", FAMILIES)
each_protocol = pytest.mark.parametrize("protocol", ("tcp", "udp"))


@pytest.fixture(
    scope="module",
    params=[
        Options(nodes=2, pods="ptp", host_routing="bpf"),
        # on one bridge, client and backend are bridged: netfilter may see that, too
        Options(nodes=2, network="vxlan", bridge_netfilter=False, host_routing="bpf"),
    ],
    ids=["routes-ptp", "vxlan-bridge"],
)
def direct(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Room]:
    """`near` and `client` on node1, `far` on node2; both Services are NodePorts as well."""
    with own_lab(request.param) as lab:
        for room in room_in(lab, tmp_path_factory.mktemp("direct")):
            made = []
            for app, node, number in (("near", "node1", NEAR_PORT), ("far", "node2", FAR_PORT)):
                one = service(
                    app, number=CLUSTER_IPS[app], protocols=("TCP", "UDP"), type="NodePort"
                )
                for port in one["spec"]["ports"]:
                    port["nodePort"] = number
                made += [deployment(app, node=node), one]
            mirror = service(
                "mirror", protocols=("TCP",), port=MIRROR_PORT, target_port=MIRROR_PORT,
                type="NodePort",
            )  # fmt: skip
            mirror["spec"]["ports"][0]["nodePort"] = MIRROR_NODE_PORT
            made += [mirror, deployment("mirror", node="node2")]
            room.apply(*made, deployment("client", node="node1"))
            server = lab.popen(
                room.pod("mirror"), [*STREAM, "mirror", str(MIRROR_PORT)], stdout=subprocess.PIPE
            )
            assert server.stdout is not None
            assert "ready" in str(server.stdout.readline())
            yield room
            server.kill()
            server.wait()
            server.stdout.close()


def cluster_ip_of(app: str, family: str, protocol: str) -> str:
    address = cluster_ip(CLUSTER_IPS[app], family)
    return f"[{address}]:80/{protocol}" if family == "ipv6" else f"{address}:80/{protocol}"


def node_port(room: Room, node: str, family: str, port: int, protocol: str) -> str:
    address = next(
        a for a in room.lab.node(node).addresses if (":" in str(a)) == (family == "ipv6")
    )
    return f"[{address}]:{port}/{protocol}" if family == "ipv6" else f"{address}:{port}/{protocol}"


def forwarded(lab: Lab, node: str, protocol: str, folder: Path) -> int:
    """Packets to and from the backends' port in the node's forward chain, since the last call."""
    rules = folder / f"{node}-{protocol}.nft"
    seen = lab.exec(node, ["nft", "-j", "list", "table", "inet", "seen"])
    count = 0
    if seen.returncode == 0:
        for entry in json.loads(seen.stdout)["nftables"]:
            for part in entry.get("rule", {}).get("expr", []):
                count += part.get("counter", {}).get("packets", 0)
        lab.exec(node, ["nft", "delete", "table", "inet", "seen"], check=True)
    rules.write_text(COUNT % (protocol, protocol))
    lab.exec(node, ["nft", "-f", str(rules)], check=True)
    return count


@each_protocol
@each_family
def test_the_translating_nodes_stack_sees_nothing(
    direct: Room, family: str, protocol: str, tmp_path: Path
) -> None:
    lab = direct.lab
    pod = direct.pod("client")
    client = "client"
    cases = [
        (pod, cluster_ip_of("near", family, protocol), "near"),
        (pod, cluster_ip_of("far", family, protocol), "far"),
        (client, node_port(direct, "node1", family, NEAR_PORT, protocol), "near"),
        (client, node_port(direct, "node1", family, FAR_PORT, protocol), "far"),
    ]
    for source, to, app in cases:  # neighbours are asked for
        expect(lab, source, to, Reaches(set(direct.pods(app))))
    forwarded(lab, "node1", protocol, tmp_path)
    for source, to, app in cases:
        expect(lab, source, to, Reaches(set(direct.pods(app))))
        assert forwarded(lab, "node1", protocol, tmp_path) == 0, to
    # the counter counts: past the Service all is the stack's
    [far] = direct.pods("far").values()
    address = next(str(a) for a in far.addresses if (":" in str(a)) == (family == "ipv6"))
    bare = f"[{address}]" if family == "ipv6" else address
    expect(lab, pod, f"{bare}:80/{protocol}", Reaches(set(direct.pods("far"))))
    assert forwarded(lab, "node1", protocol, tmp_path) > 0


@each_family
def test_who_is_seen_as_the_client(direct: Room, family: str) -> None:
    lab = direct.lab
    [pod] = direct.pods("client").values()
    [own] = [a for a in map(str, pod.addresses) if (":" in a) == (family == "ipv6")]
    for app in ("near", "far"):
        expect(lab, direct.pod("client"), cluster_ip_of(app, family, "tcp"), SourceSeen({own}))


@each_family
def test_a_stream_lives_through_a_change_of_routing(direct: Room, family: str) -> None:
    """Megabytes there and back by node1, whose agent starts with the other routing meanwhile."""
    lab = direct.lab
    node1 = next(
        str(a) for a in lab.node("node1").addresses if (":" in str(a)) == (family == "ipv6")
    )
    sender = lab.popen(
        "client", [*STREAM, "both", node1, str(MIRROR_NODE_PORT), "0"],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip
    try:
        for routing in ("stack", "bpf"):
            lab.stop_agent("node1")
            lab.start_agent("node1", host_routing=routing)
            lab.wait_for_agents(only="node1")
            assert sender.poll() is None, sender.communicate()
        said, errors = sender.communicate("", timeout=120)
        assert sender.returncode == 0, errors
        assert int(said.split()[0]) > 0
    finally:
        sender.kill()
        sender.wait()


@each_family
def test_big_data_there_and_back(direct: Room, family: str) -> None:
    """With offloads on: packets of many segments, and none that is too big for its way."""
    node1 = next(
        str(a) for a in direct.lab.node("node1").addresses if (":" in str(a)) == (family == "ipv6")
    )
    words = ["both", node1, str(MIRROR_NODE_PORT), str(50 << 20)]
    done = direct.lab.exec("client", [*STREAM, *words])
    assert done.returncode == 0, done.stderr

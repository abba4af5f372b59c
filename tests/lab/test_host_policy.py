"""What a node's own rules say of a Service's connections by the stack: they act as on any others.
And what the stack does with large packets, it does with these."""

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.lab.conftest import Room
from tests.support import bulk
from tests.support.checker import Dropped, Reaches, expect
from tests.support.manifests import cluster_ip, deployment, service

PORT, NUMBER, NODE = 31830, 83, "node2"
FAMILIES = ("ipv4", "ipv6")
CLIENT = {"ipv4": "172.31.0.2", "ipv6": "fd31::2"}
MIB = 1 << 20
each_family = pytest.mark.parametrize("family", FAMILIES)

# Of every rule: how it is made, and how it is taken away, on the node that is asked.
RULES: dict[str, tuple[str, str]] = {
    "a filter drops what comes from the client": (
        "nft add table inet careful; nft add chain inet careful f"
        " '{{ type filter hook forward priority 0; }}';"
        " nft add rule inet careful f {ip} saddr {client} drop",
        "nft delete table inet careful",
    ),
    "a filter drops what goes to the pod": (
        "nft add table inet careful; nft add chain inet careful f"
        " '{{ type filter hook forward priority 0; }}';"
        " nft add rule inet careful f {ip} daddr {pod} drop",
        "nft delete table inet careful",
    ),
    "a filter drops what leaves for the pod": (
        "nft add table inet careful; nft add chain inet careful f"
        " '{{ type filter hook postrouting priority 0; }}';"
        " nft add rule inet careful f {ip} daddr {pod} drop",
        "nft delete table inet careful",
    ),
    "IPsec blocks the way to the client": (
        "ip xfrm policy add src {all} dst {client} dir out action block",
        "ip xfrm policy del src {all} dst {client} dir out",
    ),
    "IPsec blocks the way to the pod": (
        "ip xfrm policy add src {all} dst {pod} dir out action block",
        "ip xfrm policy del src {all} dst {pod} dir out",
    ),
}


@pytest.fixture(scope="module")
def room(shared_room: Room) -> Room:
    web = service("web", number=NUMBER, protocols=("TCP", "UDP"), type="NodePort")
    for port in web["spec"]["ports"]:
        port["nodePort"] = PORT
    shared_room.apply(deployment("web", node="node1"), web, deployment("asker", node="node1"))
    for family in FAMILIES:
        expect(shared_room.lab, "client", asked(shared_room, family), pods(shared_room))
    return shared_room


def pods(room: Room) -> Reaches:
    return Reaches(set(room.pods("web")))


def asked(room: Room, family: str, protocol: str = "tcp") -> str:
    address = next(a for a in room.lab.node(NODE).addresses if (":" in a) == (family == "ipv6"))
    return f"[{address}]:{PORT}/{protocol}" if ":" in address else f"{address}:{PORT}/{protocol}"


def on_node(room: Room, command: str, family: str) -> None:
    [pod] = room.pods("web").values()
    words = {
        "ip": "ip6" if family == "ipv6" else "ip",
        "all": "::/0" if family == "ipv6" else "0.0.0.0/0",
        "client": CLIENT[family],
        "pod": next(str(a) for a in pod.addresses if (":" in str(a)) == (family == "ipv6")),
    }
    room.lab.exec(NODE, ["sh", "-ec", command.format(**words)], check=True)


@pytest.mark.parametrize("rule", RULES)
@each_family
def test_a_rule_holds_for_a_node_port_across_nodes(room: Room, family: str, rule: str) -> None:
    make, take_away = RULES[rule]
    on_node(room, make, family)
    try:
        protocol = {"ipv4": "tcp", "ipv6": "udp"}[family]
        expect(room.lab, "client", asked(room, family, protocol), Dropped(), tries=1)
    finally:
        on_node(room, take_away, family)
    expect(room.lab, "client", asked(room, family), pods(room))


@pytest.fixture
def large_packets(room: Room) -> Iterator[Callable[[], bool]]:
    """Big TCP between the two pods of node1; says whether such a packet was seen."""
    lab, changed = room.lab, []
    for app in ("web", "asker"):
        pod = room.pod(app)
        [link] = json.loads(lab.exec(pod, ["ip", "-j", "link", "show", "eth0"], check=True).stdout)
        changed += [(pod, "eth0"), ("node1", link["link_index"])]
    links = json.loads(lab.exec("node1", ["ip", "-j", "link"], check=True).stdout)
    names = {link["ifindex"]: link["ifname"] for link in links}
    changed = [(host, names.get(device, device)) for host, device in changed]
    changed += [("node1", link["ifname"]) for link in links if link["ifname"].startswith("cni")]
    for host, device in changed:
        size(room, host, device, 196_608)
    watch = lab.popen(
        room.pod("asker"), ["tcpdump", "-nqi", "eth0", "-c", "1", "ip6 and greater 66000"],
        stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        yield lambda: watch.poll() is not None
    finally:
        watch.kill()
        watch.communicate()
        for host, device in changed:
            size(room, host, device, 65_536)


def size(room: Room, host: str, device: str, most: int) -> None:
    words = ["gso_max_size", str(most), "gro_max_size", str(most)]
    room.lab.exec(host, ["ip", "link", "set", "dev", device, *words], check=True)


def test_big_tcp(room: Room, large_packets: Callable[[], bool]) -> None:
    """Packets beyond 64 KiB get through a Service as they get to the pod."""
    argv = [sys.executable, "-I", "-S", str(Path(bulk.__file__)), "upload"]
    argv += [cluster_ip(NUMBER, "ipv6"), "80", str(8 * MIB)]
    for _ in range(10):
        done = room.lab.exec(room.pod("asker"), argv)
        assert done.returncode == 0, done.stderr
        got = json.loads(done.stdout)
        assert got["bytes"] == 8 * MIB
        if large_packets():
            break
    assert large_packets(), "no packet was larger than 64 KiB"
    assert got["seconds"] < 10


def test_an_external_address_that_is_a_pods_on_the_clients_bridge(
    room: Room, bridge_netfilter: bool
) -> None:
    """The Service has it, for those beside that pod, too; another port is the pod's own."""
    [victim] = room.pods("asker").values()
    addresses = list(map(str, victim.addresses))
    taken = service("taken", app="web", port=8071, protocols=("TCP", "UDP"))
    taken["spec"]["externalIPs"] = addresses
    room.apply(deployment("beside", node="node1"), taken)
    source = room.pod("beside")
    for address in addresses:
        for protocol in ("tcp", "udp"):
            host = f"[{address}]" if ":" in address else address
            expect(room.lab, source, f"{host}:8071/{protocol}", Reaches(set(room.pods("web"))))
            expect(room.lab, source, f"{host}:80/{protocol}", Reaches(set(room.pods("asker"))))

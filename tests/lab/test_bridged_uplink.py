"""A node whose uplink is a bridge with the NIC as its port, as hosts of virtual machines have it:
with bridge netfilter, the kernel's connection tracking sees packets between the NIC and the bridge.

And neighbours on a bridge to whom only our programs send.
"""

import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from ebpf_lb.lab.cluster import Lab
from ebpf_lb.lab.options import Options
from tests.lab.conftest import Room, own_lab, room_in
from tests.lab.test_uplinks import wait
from tests.support.checker import Reaches, expect
from tests.support.manifests import deployment, service

NODE, OTHER = "node1", "node2"
PORTS = {"near": 31701, "far": 31702}
FAMILIES = ("ipv4", "ipv6")


def ip(lab: Lab, host: str, words: str) -> str:
    done = lab.exec(host, ["ip", *words.split()])
    assert done.returncode == 0, (words, done.stderr)
    return str(done.stdout)


def put_behind_a_bridge(lab: Lab) -> None:
    """eth0's addresses and routes become those of a bridge that it is a port of."""
    routes = [
        (family, line.split(" dev eth0")[0])
        for family in ("-4", "-6")
        for line in ip(lab, NODE, f"{family} route show dev eth0").splitlines()
        if " via " in f" {line}" or line.startswith("default")
    ]
    addresses = [
        line.split()[3] for line in ip(lab, NODE, "-o addr show dev eth0 scope global").splitlines()
    ]
    [mac] = [
        word.split()[1]
        for word in ip(lab, NODE, "link show eth0").splitlines()
        if word.strip().startswith("link/ether")
    ]
    ip(lab, NODE, f"link add br0 address {mac} type bridge forward_delay 0")
    for address in addresses:
        ip(lab, NODE, f"addr del {address} dev eth0")
    for family in ("-4", "-6"):
        ip(lab, NODE, f"{family} route flush dev eth0")
    ip(lab, NODE, "link set eth0 master br0")
    ip(lab, NODE, "link set br0 up")
    for address in addresses:
        ip(lab, NODE, f"addr add {address} dev br0" + (" nodad" if ":" in address else ""))
    for family, route in routes:
        ip(lab, NODE, f"{family} route replace {route.split(' proto ')[0]} dev br0")


@pytest.fixture(scope="module", params=[True, False], ids=["bridge-nf", "no-bridge-nf"])
def room(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Room]:
    options = Options(nodes=2, bridge_netfilter=request.param)
    with own_lab(options) as lab:
        put_behind_a_bridge(lab)
        wait(lab, lambda uplinks: uplinks == ["eth0"])
        for room in room_in(lab, tmp_path_factory.mktemp("bridged")):
            room.apply(
                deployment("near", node=NODE),
                deployment("far", node=OTHER),
                deployment("client", node=NODE),
                *(exposed(name) for name in PORTS),
            )
            yield room


def exposed(name: str) -> dict[str, object]:
    made = service(name, protocols=("TCP", "UDP"), type="NodePort")
    for port in made["spec"]["ports"]:
        port["nodePort"] = PORTS[name]
    return made


@pytest.mark.parametrize("protocol", ["tcp", "udp"])
@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("name", PORTS)
@pytest.mark.parametrize("source", ["client", "pod", NODE, OTHER])
def test_node_ports_answer(room: Room, source: str, name: str, family: str, protocol: str) -> None:
    address = next(a for a in room.lab.node(NODE).addresses if (":" in a) == (family == "ipv6"))
    target = f"[{address}]" if family == "ipv6" else address
    host = room.pod("client") if source == "pod" else source
    reached = Reaches(set(room.pods(name)))
    expect(room.lab, host, f"{target}:{PORTS[name]}/{protocol}", reached)


def programs(lab: Lab, name: str) -> int:
    """How many of ours are at an interface, by links or by filters."""
    number = ip(lab, NODE, f"-o link show {name}").partition(":")[0]
    links = len(list(Path(lab.node(NODE).bpffs, "tcx").glob(f"{number}-*")))
    shown = lab.exec(NODE, ["tc", "filter", "show", "dev", name, "ingress"], check=True).stdout
    return links + str(shown).count("ebpf-lb/")


def test_the_bridge_has_no_programs(room: Room) -> None:
    """What passes the NIC's programs must not be translated twice."""
    assert programs(room.lab, "br0") == 0
    assert programs(room.lab, "eth0") > 0


@pytest.mark.parametrize("family", FAMILIES)
def test_a_backend_that_changes_its_mac_address_without_a_word(room: Room, family: str) -> None:
    """Packets to it are bridged by our programs, so the stack never asks whether it is there."""
    lab = room.lab
    kernel = "ipv4" if family == "ipv4" else "ipv6"
    for name, value in (("base_reachable_time_ms", 3000), ("delay_first_probe_time", 1)):
        path = f"/proc/sys/net/{kernel}/neigh/cni0/{name}"
        lab.exec(NODE, ["sh", "-c", f"echo {value} > {path}"], check=True)
    [made] = room.lab.client.get(f"/api/v1/namespaces/{room.namespace}/services/near")["spec"][
        "clusterIPs"
    ][FAMILIES.index(family) :][:1]
    target = f"[{made}]:80/tcp" if family == "ipv6" else f"{made}:80/tcp"
    reached = Reaches(set(room.pods("near")))
    expect(lab, room.pod("client"), target, reached)
    link = 7 + FAMILIES.index(family)
    change = ["ip", "link", "set", "eth0", "address", f"02:00:00:00:00:{link:02x}"]
    assert lab.exec(room.pod("near"), change).returncode == 0
    began = time.monotonic()
    expect(lab, room.pod("client"), target, reached, within_s=60)
    assert time.monotonic() - began < 60


def test_the_node_is_ready(room: Room) -> None:
    """The node goes on to hear its API server."""
    done: subprocess.CompletedProcess[str] = room.lab.exec(
        NODE, ["curl", "-s", "http://127.0.0.1:10256/readyz"]
    )
    assert '"ready": true' in done.stdout

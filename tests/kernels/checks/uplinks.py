"""Ways between nodes and out of them that a lab does not have by itself: tunnels, bonds, VLANs.

    run.sh KERNEL python -m tests.kernels.checks.uplinks [KIND...]

Builds a lab of two nodes whose agents run already, makes each kind, and asks pods on the other node
by every way: NodePorts from outside, ClusterIPs from a pod and from the node; TCP, UDP and SCTP by
the kernel's sockets; a megabyte each way; datagrams that must be told of the path's MTU, and such
as may be fragmented; refusals. One line a question that is not answered as it should be.
"""

import json
import os
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from ebpf_lb.lab.cluster import Lab
from ebpf_lb.lab.options import Options
from tests.lab.conftest import Room, room_in
from tests.support import bulk
from tests.support.checker import Reaches, Refused, SourceSeen, expect
from tests.support.manifests import cluster_ip, deployment, service

HERE = Path(__file__).parent
NODES = {"node1": "node2", "node2": "node1"}
UNDERLAY = {"node1": ("172.30.0.11", "fd30::b"), "node2": ("172.30.0.12", "fd30::c")}
PODS = {
    "node1": ("10.244.1.0/24", "fd00:10:244:1::/64"),
    "node2": ("10.244.2.0/24", "fd00:10:244:2::/64"),
}
OWN = {"node1": ("10.244.1.0", "fd00:10:244:1::"), "node2": ("10.244.2.0", "fd00:10:244:2::")}
GATEWAY = ("172.30.0.1", "fd30::1")
PORT, SCTP_PORT, EMPTY_PORT, NUMBER = 31700, 31702, 31701, 70
MEGABYTE = 1 << 20


class Place:
    """A lab and what is done in it."""

    def __init__(self, lab: Lab) -> None:
        self.lab = lab

    def ip(self, host: str, words: str) -> None:
        self.run(host, f"ip {words}")

    def run(self, host: str, words: str) -> str:
        done = self.lab.exec(host, words.split())
        if done.returncode:
            raise RuntimeError(f"{host}: {words}: {done.stderr.strip()}")
        return done.stdout

    def status(self, host: str) -> dict:
        return json.loads(self.run(host, "curl -s http://127.0.0.1:10249/status"))

    def wait_for_uplink(self, host: str, name: str, within_s: float = 240) -> None:
        end = time.monotonic() + within_s
        while name not in self.status(host)["uplinks"]:
            if time.monotonic() > end:
                raise RuntimeError(f"{host}: {name} is not an uplink: {self.status(host)}")
            time.sleep(0.3)


# --- tunnels: besides the nodes' own wire, for the pods' networks


def tunnel(
    words: str, device: str = "tun7", families: tuple[int, ...] = (0, 1), outer: int = 0
) -> Callable[[Place], None]:
    """`ip link add WORDS`; {local} and {remote} are the nodes' addresses of the `outer` family."""

    def make(place: Place) -> None:
        for node, other in NODES.items():
            ends = {"local": UNDERLAY[node][outer], "remote": UNDERLAY[other][outer]}
            place.ip(node, "link add " + device + " " + words.format(**ends))
            carry(place, node, device, families)

    return make


def carry(place: Place, node: str, device: str, families: tuple[int, ...]) -> None:
    """The other node's pods by that device, whose address is the first of this node's pods'."""
    place.ip(node, f"link set {device} up")
    for family in families:
        bits = (32, 128)[family]
        place.ip(node, f"addr add {OWN[node][family]}/{bits} dev {device}" + " nodad" * family)
        place.ip(node, f"route replace {PODS[NODES[node]][family]} dev {device}")


def ethernet_tunnel(words: str, outer: int = 0) -> Callable[[Place], None]:
    """One with Ethernet frames: the other end is asked for by ARP, in a network of their own."""

    def make(place: Place) -> None:
        for number, (node, other) in enumerate(NODES.items(), 1):
            ends = {"local": UNDERLAY[node][outer], "remote": UNDERLAY[other][outer]}
            place.ip(node, "link add tun7 " + words.format(**ends))
            # what a network plugin sets; over IPv6 nothing else makes it fit
            place.ip(node, f"link set tun7 up mtu {1450 if outer == 0 else 1430}")
            place.ip(node, f"addr add 192.168.77.{number}/24 dev tun7")
            place.ip(node, f"addr add fd77::{number}/64 dev tun7 nodad")
            place.ip(node, f"route replace {PODS[other][0]} via 192.168.77.{3 - number}")
            place.ip(node, f"route replace {PODS[other][1]} via fd77::{3 - number}")

    return make


def wireguard(outer: int) -> Callable[[Place], None]:
    def make(place: Place) -> None:
        keys = {}
        for node in NODES:
            private = place.run(node, "wg genkey").strip()
            public = subprocess.run(
                ["wg", "pubkey"], input=private, capture_output=True, text=True, check=True
            ).stdout.strip()
            file = Path(f"/run/{node}.key")
            file.write_text(private + "\n")
            keys[node] = (file, public)
        for node, other in NODES.items():
            place.ip(node, "link add tun7 type wireguard")
            address = UNDERLAY[other][outer]
            end = f"[{address}]" if outer else address
            place.run(
                node,
                f"wg set tun7 listen-port 51820 private-key {keys[node][0]} peer {keys[other][1]}"
                f" allowed-ips {','.join(PODS[other])} endpoint {end}:51820",
            )
            place.ip(node, f"link set tun7 mtu {1420 if outer == 0 else 1400}")
            carry(place, node, "tun7", (0, 1))

    return make


def calico(place: Place) -> None:
    """One device of many ends, which the routes name."""
    for node, other in NODES.items():
        subprocess.run(["modprobe", "ipip"], check=True)
        place.ip(node, "link set tunl0 up mtu 1480")
        place.ip(node, f"addr add {OWN[node][0]}/32 dev tunl0")
        place.ip(node, f"route replace {PODS[other][0]} via {UNDERLAY[other][0]} dev tunl0 onlink")


def no_tunnel(place: Place) -> None:
    for node, other in NODES.items():
        for device in ("tun7", "tunl0"):
            place.lab.exec(node, ["ip", "link", "del", device])
            place.lab.exec(node, ["ip", "addr", "flush", "dev", device])
            place.lab.exec(node, ["ip", "link", "set", device, "down"])
        for family in (0, 1):
            via = UNDERLAY[other][family]
            place.ip(node, f"route replace {PODS[other][family]} via {via} dev eth0")


TUNNELS: dict[str, tuple[Callable[[Place], None], str]] = {
    "wireguard": (wireguard(0), "tun7"),
    "wireguard-ipv6": (wireguard(1), "tun7"),
    "ipip": (tunnel("type ipip local {local} remote {remote} ttl 64", families=(0,)), "tun7"),
    "ipip-of-many-ends": (calico, "tunl0"),
    "sit": (tunnel("type sit local {local} remote {remote} ttl 64", families=(1,)), "tun7"),
    "gre": (tunnel("type gre local {local} remote {remote} ttl 64"), "tun7"),
    "gre-with-key": (
        tunnel("type gre local {local} remote {remote} ttl 64 key 7 icsum ocsum"),
        "tun7",
    ),
    "ip6tnl": (tunnel("type ip6tnl mode any local {local} remote {remote}", outer=1), "tun7"),
    "ip6gre": (tunnel("type ip6gre local {local} remote {remote}", outer=1), "tun7"),
    "gretap": (ethernet_tunnel("type gretap local {local} remote {remote} ttl 64"), "tun7"),
    "geneve": (ethernet_tunnel("type geneve id 7 remote {remote}"), "tun7"),
    "vxlan": (
        ethernet_tunnel("type vxlan id 7 local {local} remote {remote} dstport 4789"),
        "tun7",
    ),
    "vxlan-ipv6": (
        ethernet_tunnel("type vxlan id 7 local {local} remote {remote} dstport 4789", outer=1),
        "tun7",
    ),
}


# --- uplinks: in eth0's place


def move_to(place: Place, node: str, device: str) -> None:
    """The node's addresses and routes, from eth0."""
    other = NODES[node]
    place.ip(node, "addr flush dev eth0")
    place.ip(node, f"link set {device} up")
    for family, bits in enumerate((24, 64)):
        address = f"{UNDERLAY[node][family]}/{bits}"
        place.ip(node, f"addr add {address} dev {device}" + " nodad" * family)
        place.ip(node, f"route replace default via {GATEWAY[family]} dev {device}")
        via = f"via {UNDERLAY[other][family]} dev {device}"
        place.ip(node, f"route replace {PODS[other][family]} {via}")


def bond(mode: str) -> Callable[[Place], None]:
    def make(place: Place) -> None:
        for node in NODES:
            place.ip(node, f"link add bond0 type bond mode {mode} miimon 100")
            place.ip(node, "link set eth0 down")
            place.ip(node, "link set eth0 master bond0")
            place.ip(node, f"link add eth9 type veth peer name {node}b netns {router(place)}")
            place.ip("router", f"link set {node}b up")
            if mode != "active-backup":
                # as a switch with link aggregation has it
                place.ip("router", f"link add agg-{node} type bond mode {mode} miimon 100")
                for port in (node, f"{node}b"):
                    place.ip("router", f"link set {port} down")
                    place.ip("router", f"link set {port} nomaster")
                    place.ip("router", f"link set {port} master agg-{node}")
                place.ip("router", f"link set agg-{node} up master underlay")
            else:
                place.ip("router", f"link set {node}b master underlay")
            place.ip(node, "link set eth9 master bond0")
            move_to(place, node, "bond0")

    return make


def router(place: Place) -> str:
    netns = place.lab.place("router").netns
    assert netns is not None
    return netns.name


def vlan(place: Place) -> None:
    for node in NODES:
        place.ip("router", f"link set {node} nomaster")
        place.ip("router", f"link add {node}.7 link {node} type vlan id 7")
        place.ip("router", f"link set {node}.7 up master underlay")
        place.ip(node, "link add eth0.7 link eth0 type vlan id 7")
        move_to(place, node, "eth0.7")


def on_eth0(words: str, device: str) -> Callable[[Place], None]:
    def make(place: Place) -> None:
        for node in NODES:
            place.ip(node, f"link add {device} link eth0 {words}")
            move_to(place, node, device)

    return make


def bridge(place: Place) -> None:
    for node in NODES:
        place.ip(node, "link add br0 type bridge forward_delay 0")
        place.ip(node, "link set eth0 master br0")
        move_to(place, node, "br0")


def vlan_on_bond(place: Place) -> None:
    for node in NODES:
        place.ip("router", f"link set {node} nomaster")
        place.ip("router", f"link add {node}.7 link {node} type vlan id 7")
        place.ip("router", f"link set {node}.7 up master underlay")
        place.ip(node, "link add bond0 type bond mode active-backup miimon 100")
        place.ip(node, "link set eth0 down")
        place.ip(node, "link set eth0 master bond0")
        place.ip(node, "link set bond0 up")
        place.ip(node, "link add bond0.7 link bond0 type vlan id 7")
        move_to(place, node, "bond0.7")


UPLINKS: dict[str, tuple[Callable[[Place], None], str]] = {
    "bond": (bond("active-backup"), "bond0"),
    "bond-xor": (bond("balance-xor"), "bond0"),
    "vlan": (vlan, "eth0.7"),
    "vlan-on-bond": (vlan_on_bond, "bond0.7"),
    "bridge": (bridge, "br0"),
    "macvlan": (on_eth0("type macvlan mode bridge", "mac0"), "mac0"),
    "ipvlan": (on_eth0("type ipvlan mode l2", "ipvl0"), "ipvl0"),
}


# --- questions


class Questions:
    """Asks; `failed` holds a sentence for each answer that was not as it should be."""

    def __init__(self, room: Room) -> None:
        self.room, self.lab = room, room.lab
        self.failed: list[str] = []
        self.asked = 0

    def all(self) -> None:
        pods = set(self.room.pods("web"))
        for family, name in enumerate(("ipv4", "ipv6")):
            node, virtual = UNDERLAY["node1"][family], cluster_ip(NUMBER, name)
            asker = self.room.pod("asker")
            for kind in ("tcp", "udp"):
                self.ask(
                    f"client to NodePort {name} {kind}",
                    expect,
                    self.lab,
                    "client",
                    at(node, PORT, kind),
                    Reaches(pods),
                    within_s=20,
                )
                self.ask(
                    f"pod to ClusterIP {name} {kind}",
                    expect,
                    self.lab,
                    asker,
                    at(virtual, 80, kind),
                    Reaches(pods),
                    within_s=20,
                )
                self.ask(
                    f"node to ClusterIP {name} {kind}",
                    expect,
                    self.lab,
                    "node1",
                    at(virtual, 80, kind),
                    Reaches(pods),
                    within_s=20,
                )
                self.ask(
                    f"client to empty NodePort {name} {kind}",
                    expect,
                    self.lab,
                    "client",
                    at(node, EMPTY_PORT, kind),
                    Refused(at_most_s=2),
                    within_s=5,
                )
            self.ask(
                f"pod's address kept {name}",
                expect,
                self.lab,
                asker,
                at(virtual, 80, "tcp"),
                SourceSeen({self.address(asker, family)}),
                within_s=5,
            )
            for source, to, port in (
                ("client", node, SCTP_PORT),
                (asker, virtual, 81),
                ("node1", virtual, 81),
            ):
                self.ask(f"{source} by SCTP {name}", self.sctp, source, to, port)
            for way in ("upload", "download"):
                self.ask(f"client {way} {name}", self.bulk, "client", way, node, PORT)
                self.ask(f"pod {way} {name}", self.bulk, asker, way, virtual, 80)
            for size in (1300, 1380, 1420, 1440, 1472):
                self.ask(
                    f"client's datagrams of {size} {name}", self.datagrams, node, size, "discover"
                )
            if name == "ipv4":
                for size in (1440, 1472, 4000):
                    self.ask(
                        f"client's datagrams of {size} that may be fragmented",
                        self.datagrams,
                        node,
                        size,
                        "fragment",
                    )

    def ask(self, what: str, question: Callable, *words: object, **more: object) -> None:
        self.asked += 1
        try:
            question(*words, **more)
        except Exception as error:  # an answer like any other
            text = str(error) or traceback.format_exc()
            self.failed.append(f"{what}: {text.strip()}")

    def address(self, pod: str, family: int) -> str:
        flag = "-46"[0] + "46"[family]
        done = self.lab.exec(pod, ["ip", "-j", flag, "addr", "show", "scope", "global"])
        [link] = [one for one in json.loads(done.stdout) if one.get("addr_info")]
        return link["addr_info"][0]["local"]

    def sctp(self, source: str, to: str, port: int) -> None:
        client = [sys.executable, "-I", "-S", str(HERE / "sctp_client.py"), to, str(port), "5"]
        done = self.lab.exec(source, client)
        answers = set(done.stdout.split())
        if done.returncode or answers != set(self.room.pods("web")):
            raise AssertionError(f"{done.stdout} {done.stderr}".strip()[-300:])

    def bulk(self, source: str, way: str, to: str, port: int) -> None:
        self.forget()
        argv = [sys.executable, "-I", "-S", bulk.__file__, way, to, str(port), str(MEGABYTE)]
        done = self.lab.exec(source, argv, timeout=60)
        if done.returncode:
            raise AssertionError(done.stderr.strip().splitlines()[-1])
        got = json.loads(done.stdout)
        if got["bytes"] != MEGABYTE or got["seconds"] > 10:
            raise AssertionError(str(got))

    def datagrams(self, to: str, size: int, mode: str) -> None:
        self.forget()
        argv = [sys.executable, "-I", "-S", bulk.__file__, "datagrams", to, str(PORT), str(size)]
        done = self.lab.exec("client", [*argv, mode], timeout=60)
        if done.returncode:
            raise AssertionError(done.stderr.strip().splitlines()[-1])
        first, *others = json.loads(done.stdout)
        allowed = ("answered", "told") if mode == "discover" else ("answered",)
        if first not in allowed or others != ["answered"] * 4:
            raise AssertionError(f"{first}, then {others}")

    def forget(self) -> None:
        for family in ("-4", "-6"):
            self.lab.exec("client", ["ip", family, "route", "flush", "cache"])


def at(address: str, port: int, kind: str) -> str:
    return f"[{address}]:{port}/{kind}" if ":" in address else f"{address}:{port}/{kind}"


@contextmanager
def lab_up(**options: object) -> Iterator[tuple[Place, Room]]:
    lab = Lab("k")
    lab.down()
    lab.up(Options(nodes=2, **options), progress=lambda *_: None)
    try:
        with tempfile.TemporaryDirectory() as folder:
            for room in room_in(lab, Path(folder)):
                web = service("web", number=NUMBER, protocols=("TCP", "UDP"), type="NodePort")
                for port in web["spec"]["ports"]:
                    port["nodePort"] = PORT
                web["spec"]["ports"].append(
                    {"name": "sctp", "protocol": "SCTP", "port": 81, "targetPort": 80,
                     "nodePort": SCTP_PORT}
                )  # fmt: skip
                empty = service("empty", protocols=("TCP", "UDP"), type="NodePort")
                for port in empty["spec"]["ports"]:
                    port["nodePort"] = EMPTY_PORT
                room.apply(
                    deployment("web", node="node2"), web, empty, deployment("asker", node="node1")
                )
                yield Place(lab), room
    finally:
        lab.down()


def counters(place: Place, node: str) -> dict[str, int]:
    dump = json.loads(place.run(node, "ebpf-lb maps dump counters -o json"))
    return {
        f"{family} {row['reason']}": int(row["packets"])
        for family in dump
        for row in dump[family]["counters"]
    }


def sent_by(place: Place, node: str, device: str) -> int:
    """Packets, as the kernel counts them."""
    [link] = json.loads(place.run(node, f"ip -j -s link show {device}"))
    return int(link["stats64"]["tx"]["packets"])


def question(kind: str, place: Place, room: Room, device: str) -> bool:
    started = time.monotonic()
    for node in NODES:
        place.wait_for_uplink(node, device)
    time.sleep(1)
    before, sent = counters(place, "node1"), sent_by(place, "node1", device)
    asked = Questions(room)
    asked.all()
    sent = sent_by(place, "node1", device) - sent
    after = counters(place, "node1")
    grown = {name: after[name] - before.get(name, 0) for name in after}
    drops = {name: count for name, count in grown.items() if count}
    said = place.status("node1")
    right = asked.asked - len(asked.failed)
    print(
        f"{kind}: {right} of {asked.asked} as they should be, {time.monotonic() - started:.0f} s; "
        f"uplinks {said['uplinks']}; node1 sent {sent} packets by {device}",
        flush=True,
    )
    for sentence in asked.failed:
        print(f"    FAILED {sentence}")
    if asked.failed:
        print(f"    node1 counted {drops}")
    problems = {key: said[key] for key in said if "roblem" in key or "nserved" in key if said[key]}
    if problems:
        print(f"    {problems}", flush=True)
    return not asked.failed


def attempt(kind: str, work: Callable[[], bool]) -> bool:
    try:
        return work()
    except Exception as error:
        print(f"{kind}: could not be tried: {error}", flush=True)
        if os.environ.get("TRACE"):
            traceback.print_exc()
        return False


def tunnels(wanted: list[str]) -> bool:
    good = True
    with lab_up() as (place, room):
        for kind in wanted:
            make, device = TUNNELS[kind]

            def one(make=make, device=device, kind=kind) -> bool:
                make(place)
                return question(kind, place, room, device)

            good &= attempt(kind, one)
            no_tunnel(place)
            keep_logs(place, kind)
    return good


def uplinks(wanted: list[str]) -> bool:
    good = True
    for kind in wanted:
        make, device = UPLINKS[kind]

        def one(make=make, device=device, kind=kind) -> bool:
            with lab_up() as (place, room):
                try:
                    make(place)
                    return question(kind, place, room, device)
                finally:
                    keep_logs(place, kind)

        good &= attempt(kind, one)
    return good


def keep_logs(place: Place, kind: str) -> None:
    folder = Path(os.environ.get("OUT", "/tmp")) / "uplinks"
    folder.mkdir(exist_ok=True)
    for node in NODES:
        (folder / f"{kind}-{node}.log").write_text(place.lab.log(f"agent-{node}").read_text())


def main(wanted: list[str]) -> int:
    subprocess.run(["modprobe", "-a", "br_netfilter", "sctp"], check=True)
    wanted = wanted or [*TUNNELS, *UPLINKS]
    if unknown := set(wanted) - TUNNELS.keys() - UPLINKS.keys():
        print(f"no such kind: {unknown}; there are {', '.join([*TUNNELS, *UPLINKS])}")
        return 2
    good = True
    if through := [kind for kind in wanted if kind in TUNNELS]:
        good &= tunnels(through)
    if out := [kind for kind in wanted if kind in UPLINKS]:
        good &= uplinks(out)
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

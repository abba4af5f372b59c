"""Floods through a node, and what becomes of everybody else.

    python -m tests.bench.floods [--seconds 60] [--xdp native] [--host-routing bpf]
                                                                                (`make floods`)

A machine outside sends packets of made-up clients (flood.c), of both families in turns, to
NodePorts of node1 whose pods are on node2: one that never answers, or one whose kernel and server
do. Meanwhile a pod of node1, by ClusterIP, and a machine outside, by NodePort, keep connections and
ask by each of them again and again; and they open new ones. How many of the old ones were lost, how
many of the new ones succeeded, and how much memory the agent and its maps take, is written into the
report (report.py). It ends with a failure if one was lost or memory has grown.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

from ebpf_lb.datapath.libbpf import Map
from ebpf_lb.lab.cluster import Lab
from ebpf_lb.lab.options import Options
from tests.bench import report
from tests.lab.conftest import Room, room_in
from tests.support.manifests import Manifest, cluster_ip, deployment, service

FLOODED = "node1"
NODE_PORTS = {"web": 31810, "mute": 31811, "loud": 31812}
NUMBERS = {"web": 80, "mute": 81, "loud": 82}
FAMILIES = ("ipv4", "ipv6")
KEPT = 20
"""TCP connections, and half as many UDP ones, of each watcher to each address."""
_COUNTED = {
    "evicted": r"ebpf_lb_conntrack_evictions_total(?:\{.*\})?",
    "without_room": r"ebpf_lb_packets_total\{.*(?:FLOW_TABLE_FULL|SNAT_PORTS).*\}",
}
GROWTH_MIB = 8
"""What an agent's memory may come and go by."""


@dataclass(frozen=True)
class Flood:
    kind: str
    target: str


FLOODS = {
    "SYN": Flood("syn", "mute"),
    "SYN, answered": Flood("syn", "loud"),
    "bare ACK": Flood("ack", "mute"),
    "bare ACK, refused": Flood("ack", "loud"),
    "FIN": Flood("fin", "mute"),
    "RST": Flood("rst", "mute"),
    "UDP": Flood("udp", "mute"),
    "UDP, answered": Flood("udp", "loud"),
    "fragments": Flood("fragments", "mute"),
    "ICMP errors": Flood("icmp", "mute"),
}

# Arguments: how many to keep, then ADDRESS PORT pairs. Keeps connections and asks by them until
# there is a line on standard input; opens new ones meanwhile. Prints what became of them.
WATCH = """
import json, select, socket, sys, time
kept, ends = int(sys.argv[1]), list(zip(sys.argv[2::2], map(int, sys.argv[3::2])))
def family(end):
    return socket.AF_INET6 if ":" in end[0] else socket.AF_INET
def ask(one):
    one.sendall(b"GET /hostname HTTP/1.1\\r\\nHost: x\\r\\n\\r\\n")
    return one.recv(4096).startswith(b"HTTP/1.1 200 ")
def asked(one):
    try:
        return ask(one)
    except OSError:
        return False
def told(one):
    for _ in range(8):
        try:
            one.send(b"hostname")
            if one.recv(100):
                return True
        except OSError:
            pass
    return False
def udp(end):
    one = socket.socket(family(end), socket.SOCK_DGRAM)
    one.settimeout(2)
    one.connect(end)
    return one
tcp, datagrams = [], []
for end in ends:
    for number in range(kept):
        tcp.append(socket.create_connection(end, 30))
        if number % 2:
            datagrams.append(udp(end))
for _ in range(2):
    assert all(map(ask, tcp)) and all(map(told, datagrams))
    time.sleep(0.1)
established = len(tcp) + len(datagrams)
print("ready", flush=True)
tried = succeeded = number = 0
asking = True
while asking:
    asking = not select.select([sys.stdin], [], [], 0.05)[0]
    if number % 10 == 0 or not asking:
        tcp = [one for one in tcp if asked(one)]
        datagrams = [one for one in datagrams if told(one)]
    end = ends[number % len(ends)]
    number += 1
    tried += 2
    try:
        with socket.create_connection(end, 20) as one:
            succeeded += ask(one)
    except OSError:
        pass
    with udp(end) as one:
        succeeded += told(one)
print(json.dumps({"established": established, "lost": established - len(tcp) - len(datagrams),
                  "tried": tried, "succeeded": succeeded}), flush=True)
"""


@dataclass(frozen=True)
class Found:
    """A row of the report. rate: packets a second. established, lost: of the connections that were
    kept; tried, succeeded: of the new ones. evicted: entries that gave way to others; without_room:
    new connections that found none."""

    flood: str
    packets: int
    rate: int
    established: int
    lost: int
    tried: int
    succeeded: int
    evicted: int
    without_room: int
    before_mib: float
    after_mib: float


class Floods:
    """A lab in which it can be flooded."""

    def __init__(self, room: Room, program: Path) -> None:
        self.room, self.lab, self._program = room, room.lab, program
        self.node_addresses = {
            family: next(
                str(a)
                for node in self.lab.nodes()
                if node.name == FLOODED
                for a in node.addresses
                if (":" in str(a)) == (family == "ipv6")
            )
            for family in FAMILIES
        }
        link = json.loads(self.lab.exec("client", ["ip", "-j", "-4", "route", "get", "1.1.1.1"],
                                        check=True).stdout)[0]  # fmt: skip
        self._device, gateway = link["dev"], link["gateway"]
        self.lab.exec("client", ["ping", "-c1", "-W5", gateway], check=True)
        [neighbour] = json.loads(
            self.lab.exec("client", ["ip", "-j", "neigh", "show", gateway], check=True).stdout
        )
        self._mac = neighbour["lladdr"]

    def run(self, name: str, seconds: float) -> Found:
        flood = FLOODS[name]
        with ExitStack() as stack:
            inner = [(cluster_ip(NUMBERS["web"], family), 80) for family in FAMILIES]
            outer = [(self.node_addresses[family], NODE_PORTS["web"]) for family in FAMILIES]
            watchers = [
                stack.enter_context(self._watcher(self.room.pod("client"), inner)),
                stack.enter_context(self._watcher("client", outer)),
            ]
            before = self.memory_mib()
            counted = self._counted()
            sender = self.lab.popen(
                "client",
                [
                    str(self._program), flood.kind, "--dev", self._device, "--mac", self._mac,
                    "--dst4", self.node_addresses["ipv4"], "--dst6", self.node_addresses["ipv6"],
                    "--port", str(NODE_PORTS[flood.target]), "--secs", str(seconds),
                ],
                stdout=subprocess.PIPE,
            )  # fmt: skip
            said, _ = sender.communicate(timeout=seconds + 120)
            after, grown = self.memory_mib(), self._counted() - counted
            ends = [_ended(one) for one in watchers]
        sent = json.loads(said)
        told = {key: sum(end[key] for end in ends) for key in ends[0]}
        return Found(
            flood=name,
            packets=sent["packets"],
            rate=round(sent["packets"] / sent["seconds"]),
            before_mib=round(before, 1),
            after_mib=round(after, 1),
            evicted=grown["evicted"],
            without_room=grown["without_room"],
            **told,
        )

    @contextmanager
    def _watcher(self, host: str, ends: list[tuple[str, int]]) -> Iterator[subprocess.Popen[str]]:
        words = [str(word) for end in ends for word in end]
        process = self.lab.popen(
            host, [sys.executable, "-I", "-S", "-c", WATCH, str(KEPT), *words],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        )  # fmt: skip
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n"
            yield process
        finally:
            process.kill()
            process.communicate()

    def memory_mib(self) -> float:
        """Of the flooded node's agent, its own and no file's, and of its maps."""
        process = self.lab.agent_process(FLOODED)
        assert process is not None
        kib = _kib(f"/proc/{process.pid}/status", "RssAnon")
        [node] = [node for node in self.lab.nodes() if node.name == FLOODED]
        for path in node.bpffs.rglob("maps/*"):
            with Map.open(path) as opened:
                kib += _kib(f"/proc/self/fdinfo/{opened.fd}", "memlock") // 1024
        return kib / 1024

    def _counted(self) -> Counter[str]:
        """New connections for which there was no room, and those that gave way to others."""
        page = self.lab.exec(
            FLOODED, ["curl", "-s", "http://127.0.0.1:10249/metrics"], check=True
        ).stdout
        found: Counter[str] = Counter()
        for name, pattern in _COUNTED.items():
            values = re.findall(rf"^{pattern} (\S+)$", page, re.M)
            found[name] = round(sum(map(float, values)))
        return found


def _ended(watcher: subprocess.Popen[str]) -> dict[str, int]:
    said, _ = watcher.communicate("\n", timeout=600)
    found: dict[str, int] = json.loads(said)
    return found


def _kib(file: str, name: str) -> int:
    """As /proc has it: a number after a name, mostly in KiB."""
    lines = Path(file).read_text().splitlines()
    [value] = [line.split()[1] for line in lines if line.startswith(f"{name}:")]
    return int(value)


def _node_port(name: str) -> Manifest:
    found = service(name, number=NUMBERS[name], protocols=("TCP", "UDP"), type="NodePort")
    for port in found["spec"]["ports"]:
        port["nodePort"] = NODE_PORTS[name]
    return found


@contextmanager
def floods(room: Room) -> Iterator[Floods]:
    """What there must be in a lab, whose router is told the way back to the made-up clients."""
    lab = room.lab
    room.apply(
        deployment("client", node=FLOODED),
        *(deployment(name, node="node2") for name in NUMBERS),
        *(_node_port(name) for name in NUMBERS),
    )
    lab.exec(
        room.pod("mute"), ["nft", "-f", "-"], check=True,
        input="table inet mute {\nchain silence {\ntype filter hook input priority filter;\n"
        "meta l4proto { tcp, udp } drop\n}\n}\n",
    )  # fmt: skip
    routes = (("-4", "198.18.0.0/15", "172.31.0.2"), ("-6", "2001:db8:18::/48", "fd31::2"))
    for family, network, via in routes:
        lab.exec("router", ["ip", family, "route", "replace", network, "via", via], check=True)
    try:
        with tempfile.TemporaryDirectory() as folder:
            program = Path(folder) / "flood"
            source = Path(__file__).with_name("flood.c")
            subprocess.run(["clang-14", "-O2", "-o", program, source], check=True)
            yield Floods(room, program)
    finally:
        for family, network, _ in routes:
            lab.exec("router", ["ip", family, "route", "del", network])


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--floods", default=",".join(FLOODS).replace(", ", "; "))
    parser.add_argument("--xdp", default="off")
    parser.add_argument("--host-routing", default="stack")
    options = parser.parse_args()
    wanted = [name.replace("; ", ", ") for name in options.floods.split(",")]
    lab = Lab(f"floods-{os.getpid()}")
    rows: list[Found] = []
    try:
        lab.up(
            Options(nodes=2, xdp=options.xdp, host_routing=options.host_routing),
            progress=lambda *_: None,
        )
        with tempfile.TemporaryDirectory() as folder:
            for room in room_in(lab, Path(folder)):
                with floods(room) as ready:
                    for name in wanted:
                        rows.append(ready.run(name, options.seconds))
                        print(rows[-1], flush=True)
    finally:
        lab.down()
    if wanted == list(FLOODS) and options.seconds >= 60:
        way = f"XDP {options.xdp}, hostRouting {options.host_routing}"
        report.save(
            "floods",
            {"seconds": options.seconds, "way": way, "rows": [asdict(row) for row in rows]},
        )
    bad = [row.flood for row in rows if row.lost or row.after_mib > row.before_mib + GROWTH_MIB]
    print(f"lost connections or memory: {'; '.join(bad)}" if bad else "nothing was lost")
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())

"""From pod to pod, the whole way through the kernel: straight, by this data path, by netfilter.

    python -m tests.bench.end_to_end [--services 10,1000] [--family ipv4|ipv6] [--pods ptp|bridge]
                                                                                (`make bench-path`)

Three labs stand side by side: one with agents, one whose agents have hostRouting: bpf, and one
without any proxy, in whose nodes nftables does what kube-proxy's rules do (a verdict map by
address, protocol and port, a random choice, DNAT), so that the kernel tracks each connection. In
each, a pod on node1 asks one on node1 and one on node2, straight and by a Service's address.
netpath.c has both ends in one thread: a round trip is the way and four system calls, and no
scheduler.

All ways take turns within a round, and every ratio is one within a round, to the straight way in
the lab without proxy: a busy machine moves them all alike. Times are medians; of "flood", where no
single packet is timed, the mean. "newflow", "connect" and "crr" open another connection each time.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from ebpf_lb.lab.cluster import Lab
from ebpf_lb.lab.options import Options
from tests.lab.conftest import Room, room_in
from tests.support.manifests import Manifest, cluster_ip, deployment, service

MODES = ("rr", "newflow", "connect", "crr", "flood")
TARGET_PORT, PORT = 7070, 7  # where nothing else listens; netpath itself is the server
NODES = {"near": "node1", "far": "node2"}
NUMBERS = {"near": 70, "far": 71}
ENDPOINTS = 10  # of each of the other Services


def others(count: int) -> Iterator[Manifest]:
    """Services that nobody asks, with endpoints that nobody has."""
    for number in range(count):
        name, place = f"other-{number}", number * ENDPOINTS
        port = {"name": "p", "port": 8080, "protocol": "TCP"}
        spec = {"ports": [{"name": "p", "port": 80, "targetPort": 8080}]}
        endpoints = [
            {"addresses": [f"10.251.{each >> 8 & 255}.{each & 255}"], "conditions": {"ready": True}}
            for each in range(place, place + ENDPOINTS)
        ]
        yield {"apiVersion": "v1", "kind": "Service", "metadata": {"name": name}, "spec": spec}
        yield {
            "apiVersion": "discovery.k8s.io/v1",
            "kind": "EndpointSlice",
            "metadata": {"name": name, "labels": {"kubernetes.io/service-name": name}},
            "addressType": "IPv4",
            "ports": [port],
            "endpoints": endpoints,
        }


@dataclass
class Ends:
    """A lab with a client and servers in it."""

    room: Room
    family: str

    def netns(self, app: str) -> Path:
        found = self.room.lab.place(self.room.pod(app)).netns
        assert found is not None
        return found

    def address(self, app: str) -> str:
        [pod] = self.room.pods(app).values()
        return next(str(a) for a in pod.addresses if (":" in str(a)) == (self.family == "ipv6"))


@contextmanager
def lab_up(name: str, options: Options, family: str) -> Iterator[Ends]:
    lab = Lab(name)
    with ExitStack() as stack:
        stack.callback(lab.down)
        lab.up(options, progress=lambda *_: None)
        folder = stack.enter_context(tempfile.TemporaryDirectory())
        [room] = stack.enter_context(_rooms(lab, Path(folder)))
        room.apply(
            deployment("client", node="node1"),
            *(deployment(app, node=node) for app, node in NODES.items()),
            *(
                service(app, number=NUMBERS[app], port=PORT, target_port=TARGET_PORT)
                for app in NODES
            ),
        )
        yield Ends(room, family)


@contextmanager
def _rooms(lab: Lab, folder: Path) -> Iterator[list[Room]]:
    rooms = room_in(lab, folder)
    try:
        yield [next(rooms)]
    finally:
        next(rooms, None)


def rules(ends: Ends, services: int) -> str:
    """What kube-proxy's nftables mode does for these Services, in short."""
    ip = "ip6" if ends.family == "ipv6" else "ip"
    kind = f"{'ipv6' if ip == 'ip6' else 'ipv4'}_addr"
    lines, elements = [f"table {ip} bench {{"], []
    for app, number in NUMBERS.items():
        to = ends.address(app)
        to = f"[{to}]" if ip == "ip6" else to
        for protocol in ("tcp", "udp"):
            chain = f"{app}-{protocol}"
            lines += [
                f"chain {chain}-0 {{ meta l4proto {protocol} dnat to {to}:{TARGET_PORT}; }}",
                f"chain {chain} {{ numgen random mod 1 vmap {{ 0 : goto {chain}-0 }}; }}",
            ]
            address = cluster_ip(number, ends.family)
            elements.append(f"{address} . {protocol} . {PORT} : goto {chain}")
    for number in range(services):
        chain = f"other-{number}"
        lines.append(f"chain {chain} {{ drop; }}")
        other = f"{number >> 8 & 255}.{number & 255}"
        address = f"fd00:10:97::{number:x}" if ip == "ip6" else f"10.97.{other}"
        elements.append(f"{address} . tcp . 80 : goto {chain}")
    lines += [
        f"map services {{ type {kind} . inet_proto . inet_service : verdict; elements = {{",
        ",\n".join(elements),
        "} }",
        "chain pre { type nat hook prerouting priority dstnat;",
        f"{ip} daddr . meta l4proto . th dport vmap @services; }}",
        "chain post { type nat hook postrouting priority srcnat; mark & 0x4000 != 0 masquerade; }",
        "}",
    ]
    return "\n".join(lines) + "\n"


@dataclass
class Way:
    """One row of the table: to which address a client sends, and what came out in each round."""

    name: str
    ends: Ends
    app: str
    destination: tuple[str, int]
    times_us: dict[str, list[float]] = field(default_factory=dict)

    def measure(self, program: Path, mode: str, seconds: float) -> None:
        address, port = self.destination
        bind = "::" if self.ends.family == "ipv6" else "0.0.0.0"
        argv = [
            *(program, mode, "--client", self.ends.netns("client")),
            *("--server", self.ends.netns(self.app), "--port", TARGET_PORT, "--bind", bind),
            *("--dst", address, "--dport", port, "--secs", seconds),
            *("--cpu", (os.cpu_count() or 1) - 1),
        ]
        done = subprocess.run([str(word) for word in argv], capture_output=True, text=True)
        if done.returncode:
            raise RuntimeError(f"{self.name}, {mode}: {done.stderr.strip()}")
        said = json.loads(done.stdout)
        # the median where there is one: whoever else runs costs a rate more than that
        time_ns = said.get("p50_ns") or 1e9 / said["rate"]
        self.times_us.setdefault(mode, []).append(time_ns / 1000)


def ways(with_agents: Ends, past: Ends, without: Ends) -> list[Way]:
    """The first two are what the others are compared with."""
    found = []
    for name, ends, by_service in (
        ("straight", without, False),
        ("straight, beside agents", with_agents, False),
        ("ebpf-lb", with_agents, True),
        ("ebpf-lb, past the stack", past, True),
        ("nftables", without, True),
    ):
        for app in NODES:
            to = (
                (cluster_ip(NUMBERS[app], ends.family), PORT)
                if by_service
                else (ends.address(app), TARGET_PORT)
            )
            found.append(Way(f"{name}, {app}", ends, app, to))
    return found


def table(measured: list[Way], modes: list[str]) -> Iterator[str]:
    base = {way.app: way for way in measured[:2]}
    for mode in modes:
        yield f"\n{mode:32} {'µs':>8} {'to straight':>20}"
        for way in measured:
            mine, theirs = way.times_us[mode], base[way.app].times_us[mode]
            ratios = [one / other for one, other in zip(mine, theirs, strict=True)]
            spread = f"{min(ratios):.2f}-{max(ratios):.2f}"
            yield (
                f"{way.name:32} {statistics.median(mine):8.2f}"
                f" {statistics.median(ratios):8.2f} {spread:>11}"
            )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--services", default="10,1000", help="how many others there are")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--seconds", type=float, default=0.3, help="of each measurement")
    parser.add_argument("--family", choices=["ipv4", "ipv6"], default="ipv4")
    parser.add_argument("--pods", choices=["ptp", "bridge"], default="ptp")
    parser.add_argument("--modes", default=",".join(MODES))
    options = parser.parse_args()
    modes = options.modes.split(",")
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        program = folder / "netpath"
        source = Path(__file__).with_name("netpath.c")
        subprocess.run(["clang-14", "-O2", "-o", program, source], check=True)

        def up(name: str, **chosen: str) -> Ends:
            made = Options(nodes=2, pods=options.pods, **chosen)  # type: ignore[arg-type]
            return stack.enter_context(lab_up(name, made, options.family))

        mine, past = up("bench-path"), up("bench-past", host_routing="bpf")
        other = up("bench-nft", proxy="none")
        there = 0
        for count in (int(one) for one in options.services.split(",")):
            print(f"# {count} Services beside those that are asked", file=sys.stderr, flush=True)
            for ends in (mine, past):
                ends.room.apply(*list(others(count))[there * 2 :])
            there = count
            _rules(other, count)
            measured = ways(mine, past, other)
            for _ in range(options.rounds):
                for mode in modes:
                    for way in measured:
                        way.measure(program, mode, options.seconds)
            print(f"\n{options.family}, {count} other Services")
            print("\n".join(table(measured, modes)), flush=True)


def _rules(ends: Ends, services: int) -> None:
    for node in sorted(set(NODES.values())):
        ip = "ip6" if ends.family == "ipv6" else "ip"
        text = f"table {ip} bench\ndelete table {ip} bench\n" + rules(ends, services)
        ends.room.lab.exec(node, ["nft", "-f", "-"], input=text, check=True)


if __name__ == "__main__":
    main()

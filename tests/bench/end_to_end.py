"""From pod to pod, the whole way through the kernel: straight, by this data path, by kube-proxy.

    python -m tests.bench.end_to_end [--rounds N] [--family ipv4|ipv6] [--services N]
                                                                                (`make bench-path`)

Four labs stand side by side: one without any proxy, one with agents, one whose agents have
hostRouting: bpf, and one with kube-proxy's nftables mode (where its program is not at hand: with
rules that do the same), so that the kernel tracks each connection. There a pod on node1 asks one on
node1 and one on node2, straight and by a Service's address, and a machine outside asks a NodePort
of node1 whose pod is on node2. In the first lab, the least program that serves a Service
(stripped.c) takes its turn, too, and is gone while others are measured. netpath.c has both ends in
one thread: a round trip is the way and four system calls, and no scheduler.

All ways take turns within a round, each round in another order, and every ratio is one within a
round: to the straight way without any proxy, or, for the NodePort, to kube-proxy's. A busy
machine moves them all alike. Times are medians; of "flood", where no single packet is timed, the
mean. "newflow", "connect" and "crr" open another connection each time; a "time" of "stream" is that
of 64 KiB. Where a goal (goals.py) is missed, that way and the one it is compared with are run once
more under perf. What came out goes into the report (report.py).
"""

from __future__ import annotations

import argparse
import json
import os
import socket
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, ExitStack, nullcontext
from dataclasses import dataclass, field
from pathlib import Path

from ebpf_lb.datapath.attach.tcx import supported
from ebpf_lb.datapath.settings import Settings
from ebpf_lb.lab.options import Options
from ebpf_lb.model.values import Family
from tests.bench import goals, profile, report
from tests.bench.places import (
    BY_NODE_PORT,
    BY_SERVICE,
    NODE_PORT,
    NODES,
    NUMBERS,
    PORT,
    STRAIGHT,
    Ends,
    lab_up,
    netfilter,
)
from tests.bench.stripped import Stripped, other_end
from tests.support.manifests import cluster_ip

MODES = ("rr", "newflow", "connect", "crr", "flood", "stream")
FAMILY = {family.directory: family for family in Family}
FAMILIES = tuple(FAMILY)
CPU = (os.cpu_count() or 1) - 1


@dataclass
class Way:
    """One row of the table. who: asks. base: the way that it is compared with, by name. around:
    what is there only while it is measured."""

    name: str
    family: str
    ends: Ends
    who: str
    app: str
    port: int
    destination: tuple[str, int]
    base: str
    times_us: dict[str, list[float]] = field(default_factory=dict)
    around: Callable[[], AbstractContextManager[None]] = nullcontext

    def command(self, program: Path, mode: str, seconds: float) -> list[str]:
        address, port = self.destination
        bind = "::" if self.family == "ipv6" else "0.0.0.0"
        argv = [
            *(program, mode, "--client", self.ends.netns(self.who)),
            *("--server", self.ends.netns(self.app), "--port", self.port, "--bind", bind),
            *("--dst", address, "--dport", port, "--secs", seconds, "--cpu", CPU),
        ]
        return [str(word) for word in argv]

    def run(self, program: Path, mode: str, seconds: float) -> float:
        """µs."""
        with self.around():
            done = subprocess.run(
                self.command(program, mode, seconds), capture_output=True, text=True
            )
        if done.returncode:
            raise RuntimeError(f"{self.name}, {self.family}, {mode}: {done.stderr.strip()}")
        return time_us(done.stdout)

    def measure(self, program: Path, mode: str, seconds: float) -> None:
        self.times_us.setdefault(mode, []).append(self.run(program, mode, seconds))


def time_us(printed: str) -> float:
    """By netpath; the median where there is one: whoever else runs costs a rate more than that."""
    said = json.loads(printed)
    return float((said.get("p50_ns") or 1e9 / said["rate"]) / 1000)


def ways(
    family: str, bare: Ends, with_agents: Ends, past: Ends, other: Ends, name_of_other: str
) -> list[Way]:
    found = []
    for app in NODES:
        straight = f"straight, {app}"
        for name, ends, by_service in (
            ("straight", bare, False),
            ("straight beside agents", with_agents, False),
            ("ebpf-lb", with_agents, True),
            ("ebpf-lb past the stack", past, True),
            (name_of_other, other, True),
        ):
            port = BY_SERVICE if by_service else STRAIGHT
            to = (
                (cluster_ip(NUMBERS[app], family), PORT)
                if by_service
                else (ends.address(app, family), STRAIGHT)
            )
            found.append(Way(f"{name}, {app}", family, ends, "client", app, port, to, straight))
    for name, ends in (
        ("ebpf-lb", with_agents),
        ("ebpf-lb past the stack", past),
        (name_of_other, other),
    ):
        to = ends.node_address("node1", family), NODE_PORT
        base = f"{name_of_other}, NodePort"
        found.append(
            Way(f"{name}, NodePort", family, ends, "outside", "far", BY_NODE_PORT, to, base)
        )
    return found


def stripped_way(family: str, bare: Ends, program: Stripped) -> Way:
    """To the pod of the client's node, by a Service that nobody else serves there."""
    to = cluster_ip(NUMBERS["near"], family), PORT
    client, pod = (other_end(bare.netns(who)) for who in ("client", "near"))
    for protocol in (socket.IPPROTO_TCP, socket.IPPROTO_UDP):
        program.serve(protocol, to, (bare.address("near", family), BY_SERVICE), pod)
    node = bare.lab.place("node1").netns
    assert node is not None

    def around() -> AbstractContextManager[None]:
        return program.attached(node, client, pod)

    return Way(
        "stripped program, near", family, bare, "client", "near", BY_SERVICE, to,
        "straight, near", around=around,
    )  # fmt: skip


def rows(measured: Iterable[Way]) -> Iterator[dict[str, object]]:
    """As the report has them."""
    for way in measured:
        for mode, times in way.times_us.items():
            yield {"way": way.name, "family": way.family, "mode": mode, "base": way.base,
                   "times_us": [round(each, 3) for each in times]}  # fmt: skip


def table(found: list[dict[str, object]], family: str, modes: Iterable[str]) -> Iterator[str]:
    paths = goals.Paths(found)
    for mode in modes:
        yield f"\n{family} {mode:27} {'µs':>8} {'÷ base':>8}"
        for way, base in paths.ways(family, mode):
            ratios = paths.ratios(family, mode, way, base)
            spread = f"{min(ratios):.2f}-{max(ratios):.2f}"
            mine = statistics.median(paths.times(family, mode, way))
            yield f"{way:32} {mine:8.2f} {statistics.median(ratios):8.2f} {spread:>11}"


def _profiles(
    program: Path, measured: list[Way], missed: Iterable[goals.PathGoal]
) -> dict[str, list[tuple[str, float]]]:
    """Of each goal that is missed: who takes more time, in µs, than on the way beside."""
    found = {}
    taken: dict[tuple[str, str, str], tuple[dict[str, float], float]] = {}

    def of(way: Way, mode: str) -> tuple[dict[str, float], float]:
        key = (way.name, way.family, mode)
        if key not in taken:
            said, shares = profile.of_command(way.command(program, mode, 1.0))
            taken[key] = shares, time_us(said)
        return taken[key]

    for goal in missed:
        [mine] = [w for w in measured if (w.name, w.family) == (goal.way, goal.family)]
        [base] = [w for w in measured if (w.name, w.family) == (mine.base, goal.family)]
        shares, us = of(mine, goal.mode)
        base_shares, base_us = of(base, goal.mode)
        if shares and base_shares:
            found[goal.name] = profile.beyond(shares, us, base_shares, base_us)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--services", type=int, default=100, help="how many others there are")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=0.2, help="of each measurement")
    parser.add_argument("--family", choices=FAMILIES)
    parser.add_argument("--pods", choices=["ptp", "bridge"], default="ptp")
    parser.add_argument("--modes", default=",".join(MODES))
    options = parser.parse_args()
    modes = options.modes.split(",")
    families = [options.family] if options.family else FAMILIES
    # "newflow" fills the smaller table that a lab's nodes have
    os.environ.setdefault("EBPF_LB_FLOWS", str(Settings().flows))
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        program = folder / "netpath"
        source = Path(__file__).with_name("netpath.c")
        subprocess.run(["clang-14", "-O2", "-o", program, source], check=True)

        def up(name: str, **chosen: str) -> Ends:
            made = Options(nodes=2, pods=options.pods, **chosen)  # type: ignore[arg-type]
            name = f"{name}-{os.getpid()}"
            return stack.enter_context(lab_up(name, made, options.services))

        bare, mine = up("bare", proxy="none"), up("path")
        past, other = up("past", host_routing="bpf"), up("other", proxy="none")
        proxy = stack.enter_context(netfilter(other, options.services))
        measured = []
        for family in families:
            measured += ways(family, bare, mine, past, other, proxy)
            if supported():
                measured.append(stripped_way(family, bare, Stripped(FAMILY[family])))
        for number in range(options.rounds):
            print(f"# round {number + 1} of {options.rounds}", file=sys.stderr, flush=True)
            at = number * 5 % len(measured)
            for mode in modes:
                for way in (*measured[at:], *measured[:at]):
                    way.measure(program, mode, options.seconds)
        found = list(rows(measured))
        for family in families:
            print("\n".join(table(found, family, modes)), flush=True)
        judged = goals.judged_paths(goals.Paths(found), families, modes)
        profiles = _profiles(program, measured, [each.goal for each in judged if not each.met])
    about = {"services": options.services, "rounds": options.rounds, "pods": options.pods,
             "proxy": proxy}  # fmt: skip
    report.save("paths", {**about, "rows": found, "profiles": profiles})
    for each in judged:
        print(each)


if __name__ == "__main__":
    main()

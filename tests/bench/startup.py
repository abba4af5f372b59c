"""From the start of an agent's process to Services in the kernel, as `/readyz` says, on a node of a
lab.

With nothing pinned all programs are verified; over what an agent left, nothing is loaded or
written.
"""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from statistics import median

from ebpf_lb.lab import state
from ebpf_lb.lab.cluster import Lab
from ebpf_lb.lab.options import Options
from tests.bench.writer import line
from tests.support import manifests

ROUNDS, SERVICES = 5, 10
NODE = "node1"
BUDGET_MS, LIVE_MS = 1000.0, 300.0

# Prints when the first page is answered, and when the second says 200: seconds since the machine's
# start.
WAIT = """
import http.client, sys, time
print("waiting", flush=True)
for page, wanted in (("/livez", (200, 503)), ("/readyz", (200,))):
    while True:
        try:
            connection = http.client.HTTPConnection("127.0.0.1", 10256, timeout=5)
            connection.request("GET", page)
            if connection.getresponse().status in wanted:
                break
        except OSError:
            pass
        time.sleep(0.005)
    print(time.clock_gettime(time.CLOCK_BOOTTIME), flush=True)
"""


def lines(rounds: int = ROUNDS, services: int = SERVICES) -> Iterator[str]:
    """Medians of some starts of each kind."""
    lab = Lab(f"b{os.getpid()}")
    try:
        lab.up(Options(nodes=1), progress=lambda *_: None)
        with tempfile.TemporaryDirectory() as folder:
            wanted = [manifests.service(f"service{number}") for number in range(services)]
            lab.apply([manifests.write(Path(folder, "services.yaml"), wanted)])
        for what, forget in (("nothing pinned", True), ("over what is pinned", False)):
            found = [_start(lab, forget) for _ in range(rounds)]
            for page, times, budget in (
                ("/livez", [live for live, _, _ in found], LIVE_MS),
                ("/readyz", [ready for _, ready, _ in found], BUDGET_MS),
                ("processor time", [used for _, _, used in found], 2 * BUDGET_MS),
            ):
                text = f"start, {what}, {services} Services: {page}"
                yield line("both", text, median(times), budget)
    finally:
        lab.down()


def _start(lab: Lab, forget: bool) -> tuple[float, float, float]:
    """Milliseconds to the first answer, to readiness, and of processors until then."""
    lab.stop_agent(NODE)
    if forget:
        clean_up(lab)
    waiting = lab.popen(NODE, [sys.executable, "-I", "-S", "-c", WAIT], stdout=-1)
    with waiting:
        assert waiting.stdout is not None
        waiting.stdout.readline()
        lab.start_agent(NODE)
        live, ready = (float(waiting.stdout.readline()) for _ in range(2))
    process = state.State.load(lab.names).processes[lab.node(NODE).agent]
    began, used = times_of(process.pid)
    return 1000 * (live - began), 1000 * (ready - began), 1000 * used


def clean_up(lab: Lab) -> None:
    """As a node is that has just been booted. Removed pins alone would leave programs at the hooks
    for a moment, without their slow paths: they drop whoever asks for a page then."""
    words = ["cleanup", "--bpffs", str(lab.node(NODE).bpffs)]
    with tempfile.TemporaryDirectory() as nothing:  # what others have compiled stays
        environment = lab.place(NODE).full_environment() | {"EBPF_LB_CACHE": nothing}
        command = [sys.executable, "-m", "ebpf_lb", *words]
        lab.exec(NODE, command, check=True, env=environment)


def times_of(pid: int) -> tuple[float, float]:
    """When a process was started, in seconds since the machine's start, and what it and those that
    it has waited for have used."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    ticks = os.sysconf("SC_CLK_TCK")
    return int(fields[19]) / ticks, sum(map(int, fields[11:15])) / ticks

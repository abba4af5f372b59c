"""From the start of an agent's process to very many Services in the kernel, as `/readyz` says, on a
node of a lab: with empty maps, and over full ones, where nothing is loaded or written.

An API server in which nothing happens (still.py) stands for the lab's own. kube-proxy starts in its
turn, where its program is at hand.
"""

from __future__ import annotations

import http.client
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median

from ebpf_lb.lab.cluster import Lab
from ebpf_lb.lab.options import Options
from tests.bench.places import kube_proxy_program
from tests.bench.startup import BUDGET_MS, NODE, clean_up, times_of
from tests.bench.writer import line

MANY, ENDPOINTS, MANY_MS, MEMORY_MIB = 10_000, 10, 2000.0, 80.0
_WITHIN_S = 300.0
_STILL_PORT = 6444
_CONFIG = """
apiVersion: v1
kind: Config
current-context: still
clusters: [{name: still, cluster: {server: "http://127.0.0.1:%d"}}]
users: [{name: still, user: {}}]
contexts: [{name: still, context: {cluster: still, user: still}}]
"""


def lines(services: int = MANY, rounds: int = 3) -> Iterator[str]:
    """Likewise, at very many Services of both families."""
    lab = Lab(f"b{os.getpid()}")
    with tempfile.TemporaryDirectory() as folder:
        config, log = Path(folder, "kubeconfig"), Path(folder, "log")
        config.write_text(_CONFIG % _STILL_PORT)
        try:
            lab.up(Options(nodes=1), progress=lambda *_: None)
            lab.stop_agent(NODE)
            bpffs = lab.node(NODE).bpffs
            agent = [
                *(sys.executable, "-m", "ebpf_lb", "agent", "--kubeconfig", str(config)),
                *(
                    "--node-name",
                    NODE,
                    "--bpffs",
                    str(bpffs),
                    "--cgroup",
                    str(lab.node(NODE).cgroup),
                ),
            ]
            with _still_server(lab, services):
                found: dict[bool, list[tuple[float, float, float, int]]] = {True: [], False: []}
                for _ in range(rounds):
                    for forget in (True, False):
                        if forget:
                            clean_up(lab)
                        found[forget].append(_until_ready(lab, agent, log))
                for what, forget, budget in (
                    ("empty maps", True, MANY_MS),
                    ("over full maps", False, BUDGET_MS),
                ):
                    text = f"start, {what}, {services:,} Services of {ENDPOINTS}"
                    ready, used, memory, writes = (
                        median(one[at] for one in found[forget]) for at in range(4)
                    )
                    yield line("both", f"{text}: /readyz", ready, budget)
                    yield line("both", f"{text}: processor time", used, 2 * budget)
                    yield _counted(f"{text}: resident MiB", memory, MEMORY_MIB)
                    if not forget:
                        yield _counted(f"{text}: writes", writes, 0)
                if program := kube_proxy_program():
                    ms = _kube_proxy(lab, program, config, log)
                    yield line("both", f"the real kube-proxy, {services:,} Services", ms, MANY_MS)
        finally:
            lab.down()


def _counted(what: str, value: float, budget: float) -> str:
    said = "ok" if value <= budget else "over"
    return f"{'both':6} {what:50} {value:8.0f}     budget {budget:6.0f}  {said}"


@contextmanager
def _still_server(lab: Lab, services: int) -> Iterator[None]:
    [node] = [one for one in lab.nodes() if one.name == NODE]
    addresses = ",".join(map(str, node.addresses))
    words = [str(_STILL_PORT), str(services), str(ENDPOINTS), NODE, addresses]
    server = lab.popen(NODE, [sys.executable, "-m", "tests.bench.still", *words], stdout=-1)
    with server:
        try:
            assert server.stdout is not None and server.stdout.readline() == "serving\n"
            yield
        finally:
            server.kill()


def _until_ready(lab: Lab, agent: list[str], log: Path) -> tuple[float, float, float, int]:
    """Milliseconds, of processors, MiB that stay resident, and what was written to the maps."""
    with log.open("w") as said:
        process = lab.popen(NODE, agent, stdout=said, stderr=said)
    with process:
        try:
            began, _ = times_of(process.pid)
            _wait(lab, process, log, lambda: _asked(10256, "/readyz")[0] == 200)
            now = time.clock_gettime(time.CLOCK_BOOTTIME)
            _, used = times_of(process.pid)
            time.sleep(2)  # memory is given back
            for text in Path(f"/proc/{process.pid}/status").read_text().splitlines():
                if text.startswith("VmRSS:"):
                    memory = int(text.split()[1]) / 1024
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait(30)
    told = [json.loads(one) for one in log.read_text().splitlines() if one.startswith("{")]
    written = [one["writes"] for one in told if one["event"] == "synced"]
    left_out = [one["error"] for one in told if one["level"] == "error"]
    if left_out or not written:
        raise RuntimeError(left_out[:3] or told[-3:])
    return 1000 * (now - began), 1000 * used, memory, written[0]


def _kube_proxy(lab: Lab, program: str, config: Path, log: Path) -> float:
    """Milliseconds until it has written the rules of both families once."""
    argv = [
        *(program, "--kubeconfig", str(config), "--proxy-mode", "nftables"),
        *("--hostname-override", NODE, "--conntrack-max-per-core", "0", "--conntrack-min", "0"),
    ]
    with log.open("w") as said:
        process = lab.popen(NODE, argv, stdout=said, stderr=said)
    with process:
        try:
            began, _ = times_of(process.pid)
            _wait(lab, process, log, _has_synced)
            return 1000 * (time.clock_gettime(time.CLOCK_BOOTTIME) - began)
        finally:
            process.kill()


def _has_synced() -> bool:
    _, metrics = _asked(10249, "/metrics")
    counts = re.findall(
        r"^kubeproxy_sync_proxy_rules_duration_seconds_count\S* (\d+)$", metrics, re.MULTILINE
    )
    return len(counts) >= 2 and all(int(one) for one in counts)


def _wait(lab: Lab, process: subprocess.Popen[str], log: Path, done: Callable[[], bool]) -> None:
    give_up_at = time.monotonic() + _WITHIN_S
    with lab.entered(NODE):
        while not done():
            if process.poll() is not None or time.monotonic() > give_up_at:
                raise RuntimeError(log.read_text()[-2000:])
            time.sleep(0.02)


def _asked(port: int, path: str) -> tuple[int, str]:
    """Status and body; 0 while nobody answers."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
    try:
        connection.request("GET", path)
        answer = connection.getresponse()
        return answer.status, answer.read().decode()
    except (OSError, http.client.HTTPException):
        return 0, ""
    finally:
        connection.close()

"""The agent with the rights that the DaemonSet gives it, and no others: it loads, attaches, serves,
takes over from itself, and complains of nothing.
"""

import json
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import yaml

from ebpf_lb.lab.cluster import Lab
from ebpf_lb.lab.names import PODS
from tests.lab.conftest import Room
from tests.lab.small_node import EBPF_LB, NODE, page, restart
from tests.support.checker import Reaches, expect
from tests.support.manifests import cluster_ip, deployment, service

DAEMON_SET = Path(__file__).parents[2] / "manifests/base/ebpf-lb.yaml"
NUMBERS = {"NET_ADMIN": 12, "PERFMON": 38, "BPF": 39}  # linux/capability.h
READY_S = 300  # where many tests load programs at once
# As a container's: what is not in the bounding set no program that is executed can have.
LIMITED = """
import ctypes, os, sys
libc = ctypes.CDLL(None, use_errno=True)
PR_CAPBSET_DROP, PR_SET_NO_NEW_PRIVS = 24, 38
last = int(open("/proc/sys/kernel/cap_last_cap").read())
for number in set(range(last + 1)) - set(map(int, sys.argv[1].split(","))):
    assert libc.prctl(PR_CAPBSET_DROP, number, 0, 0, 0) == 0, number
assert libc.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0
os.execvp(sys.argv[2], sys.argv[2:])
"""


def allowed() -> list[str]:
    (daemon_set,) = (
        one for one in yaml.safe_load_all(DAEMON_SET.read_text()) if one["kind"] == "DaemonSet"
    )
    (container,) = daemon_set["spec"]["template"]["spec"]["containers"]
    context = container["securityContext"]
    assert context["capabilities"]["drop"] == ["ALL"] and not context["allowPrivilegeEscalation"]
    return list(context["capabilities"]["add"])


@contextmanager
def agent(lab: Lab, log: Path, *words: str) -> Iterator["subprocess.Popen[str]"]:
    """The node's, with these rights."""
    numbers = ",".join(str(NUMBERS[name]) for name in allowed())
    kubeconfig = ["--kubeconfig", str(lab.names.kubeconfig(NODE))]
    networks = ["--cluster-cidr", ",".join(map(str, PODS.networks(lab.node(NODE).families)))]
    argv = [sys.executable, "-c", LIMITED, numbers]
    argv += [*EBPF_LB, "agent", *kubeconfig, *networks, *words]
    with log.open("a") as output:
        process = lab.popen(NODE, argv, stdout=output, stderr=output)
    try:
        deadline = time.monotonic() + READY_S
        while not lab.agent_healthy(NODE):
            assert process.poll() is None and time.monotonic() < deadline, log.read_text()
            time.sleep(0.1)
        yield process
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(10)


@pytest.fixture
def without_agent(lab: Lab) -> Iterator[Lab]:
    lab.stop_agent(NODE)
    try:
        yield lab
    finally:
        lab.exec(NODE, [*EBPF_LB, "cleanup"], check=True)
        restart(lab)


def initialize(lab: Lab) -> None:
    done = lab.exec(NODE, [*EBPF_LB, "agent", "--init-only"])
    assert done.returncode == 0, done.stderr


def effective(process: "subprocess.Popen[str]") -> int:
    status = Path(f"/proc/{process.pid}/status").read_text()
    found = re.search(r"^CapEff:\s+(\w+)$", status, re.M)
    assert found is not None
    return int(found[1], 16)


def test_three_capabilities_are_enough(without_agent: Lab, room: Room, tmp_path: Path) -> None:
    """From nothing, over what is there already, and with XDP and other hooks in its place."""
    lab, log = without_agent, tmp_path / "agent.log"
    lab.exec(NODE, [*EBPF_LB, "cleanup"], check=True)
    initialize(lab)
    room.apply(
        deployment("web", node="node1"), deployment("client", node=NODE), service("web", number=83)
    )
    pods = set(room.pods("web"))
    for words in ((), (), ("--xdp", "generic", "--tc-hooks", "clsact"), ()):
        with agent(lab, log, *words) as process:
            assert effective(process) == sum(1 << NUMBERS[name] for name in allowed())
            for family in ("ipv4", "ipv6"):
                vip = cluster_ip(83, family)
                at = f"[{vip}]:80/tcp" if family == "ipv6" else f"{vip}:80/tcp"
                for source in (NODE, room.pod("client")):
                    expect(lab, source, at, Reaches(pods))
            said = json.loads(page(lab, "/status"))
            assert said["hookProblems"] == said["mapProblems"] == [], said
            modes = {one["mode"] for one in said["xdp"]["interfaces"].values()}
            assert modes == ({"generic"} if words else set()), said["xdp"]
    wrong = [
        line
        for line in log.read_text().splitlines()
        if '"warning"' in line or '"error"' in line or "not permitted" in line
    ]
    assert not wrong, wrong

"""Nothing stays behind, however a lab ends."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from ebpf_lb.lab import state
from ebpf_lb.lab.cluster import AlreadyUpError, Lab
from ebpf_lb.lab.options import Options
from ebpf_lb.lab.state import NotUpError
from tests.capabilities import LAB, needs
from tests.support.checker import SETTLED_S
from tests.support.leftovers import leftovers

pytestmark = needs(*LAB)
EBPF_LB = [sys.executable, "-m", "ebpf_lb", "lab"]


@pytest.fixture
def lab() -> Iterator[Lab]:
    made = Lab(f"d{os.getpid()}")
    yield made
    made.down()
    assert leftovers(made.name) == []


def start_up(lab: Lab) -> subprocess.Popen[str]:
    words = ["up", "--name", lab.name, "--proxy", "none"]

    def heed_interrupts() -> None:
        # a shell's background jobs are born deaf to SIGINT, and so would be what they start
        signal.signal(signal.SIGINT, signal.SIG_DFL)

    return subprocess.Popen(
        [*EBPF_LB, *words], text=True, stderr=subprocess.PIPE, preexec_fn=heed_interrupts
    )


def wait_for(path: Path) -> None:
    end = time.monotonic() + SETTLED_S
    while not path.exists():
        assert time.monotonic() < end, f"{path} does not appear"
        time.sleep(0.005)


def interrupted(lab: Lab, made: str, number: signal.Signals) -> None:
    """An `up` that gets a signal when this machine is there, and has ended. One that was ready
    before the signal came, since this process was stopped for a while, does not count."""
    for _ in range(5):
        process = start_up(lab)
        wait_for(lab.names.netns(made))
        process.send_signal(number)
        process.communicate(timeout=SETTLED_S)
        if process.returncode != 0 and not lab.running:
            return
        lab.down()
    pytest.fail("`up` is always ready before")


@pytest.mark.parametrize("made", ["router", "node2"])
def test_a_killed_up_is_removed_by_down(lab: Lab, made: str) -> None:
    interrupted(lab, made, signal.SIGKILL)
    assert not lab.running
    with pytest.raises(AlreadyUpError, match="half-built: remove it"):
        lab.up(Options(proxy="none"))
    lab.down()
    assert leftovers(lab.name) == []


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_up_removes_everything_itself(lab: Lab, number: signal.Signals) -> None:
    interrupted(lab, "node1", number)
    end = time.monotonic() + SETTLED_S
    while leftovers(lab.name) and time.monotonic() < end:
        time.sleep(0.1)  # its children have ended, but process 1 has to take note of that
    assert leftovers(lab.name) == []


def test_a_lab_from_up_to_down(lab: Lab) -> None:
    lab.up(Options(nodes=1, proxy="none"))
    assert lab.running
    with pytest.raises(AlreadyUpError, match="runs already"):
        lab.up(Options(proxy="none"))
    stray = lab.popen("node1", ["sleep", "1000"])
    foreign = lab.popen("client", ["sh", "-c", "trap '' TERM; sleep 1000 & wait"])
    lab.down()
    assert stray.wait(SETTLED_S) == foreign.wait(SETTLED_S) == -signal.SIGKILL
    assert leftovers(lab.name) == []
    lab.down()
    with pytest.raises(NotUpError, match="there is no lab"):
        lab.nodes()


def test_labs_side_by_side_leave_each_other_alone(lab: Lab) -> None:
    other = Lab(f"{lab.name}-2")
    try:
        lab.up(Options(nodes=1, proxy="none"))
        other.up(Options(nodes=1, proxy="none"))
        lab.down()
        assert other.client.get("/api/v1/nodes/node1")["metadata"]["name"] == "node1"
        assert other.exec("node1", ["ip", "link", "show", "cni0"]).returncode == 0
    finally:
        other.down()
    assert not other.names.existing_netns()
    assert not other.names.cgroup.exists()
    assert not other.names.dir.exists()


def test_exec_hands_on_exit_status_input_and_output(lab: Lab) -> None:
    lab.up(Options(nodes=1, proxy="none"))
    words = [*EBPF_LB, "exec", "--name", lab.name, "node1", "--"]
    script = "cat; ip -o link show cni0 | wc -l; cat /proc/self/cgroup | tail -1; exit 7"
    done = subprocess.run(
        [*words, "sh", "-c", script], input="hello\n", capture_output=True, text=True, check=False
    )
    assert done.returncode == 7
    assert done.stdout == f"hello\n1\n0::/ebpf-lb-{lab.name}/node1/host\n"
    missing = subprocess.run([*words, "no-such-command"], capture_output=True, check=False)
    assert missing.returncode == 127
    nobody = subprocess.run(
        [*EBPF_LB, "exec", "--name", lab.name, "nobody", "--", "true"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert nobody.returncode == 1
    assert "no host or running pod 'nobody'" in nobody.stderr


def cli(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*EBPF_LB, *words], capture_output=True, text=True, check=False)


def test_a_lab_that_is_not_there(lab: Lab) -> None:
    done = cli("down", "--name", lab.name)
    assert done.returncode == 0
    assert f"There is no lab '{lab.name}'" in done.stderr


def test_bad_manifests_are_refused_before_anything_is_built(lab: Lab, tmp_path: Path) -> None:
    bad = tmp_path / "bad.yaml"
    bad.write_text(
        "{apiVersion: v1, kind: Service, metadata: {name: a}, spec: {ports: [{prt: 80}]}}"
    )
    done = cli("up", "--name", lab.name, "--proxy", "none", "-f", str(bad))
    assert done.returncode == 1
    assert 'spec.ports[0].prt: unknown field (did you mean "port"?)' in done.stderr
    assert leftovers(lab.name) == []


def test_status_names_what_is_not_well_and_the_log(lab: Lab) -> None:
    lab.up(Options(nodes=1, proxy="none"))
    well = cli("status", "--name", lab.name)
    assert (well.returncode, well.stderr) == (0, "")
    kubelet = state.State.load(lab.names).processes["kubelet"]
    kubelet.signal(signal.SIGKILL)
    assert kubelet.wait(SETTLED_S)
    done = cli("status", "--name", lab.name)
    assert done.returncode == 1
    assert done.stderr == f"Not well: the kubelet does not run; see {lab.log('kubelet')}\n"
    [row] = [line for line in cli("list").stdout.splitlines() if line.startswith(f"{lab.name} ")]
    assert row.split()[1:] == ["up", "1", "dual", "routes", "none", "hand"]


def test_somebodys_first_namespace_meanwhile_hides_nothing(tmp_path: Path) -> None:
    """`ip netns add` makes its folder a mount; what a lab mounted there before must not be below.
    In a mount namespace of its own, where there is no such mount yet."""
    script = """
import subprocess, sys
from pathlib import Path
from ebpf_lb.lab import namespaces
path = Path("/run/netns/ebpflb-first-router")
namespaces.create(path)
subprocess.run(["ip", "netns", "add", "ebpflb-first-other"], check=True)
subprocess.run(["ip", "netns", "delete", "ebpflb-first-other"], check=True)
namespaces.remove(path)
sys.exit(path.exists())
"""
    private = f"mount -t tmpfs none /run && exec {sys.executable} -c '{script}'"
    done = subprocess.run(
        ["unshare", "--mount", "--propagation", "private", "sh", "-c", private],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr

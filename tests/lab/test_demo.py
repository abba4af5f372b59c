"""What people do first: the demo, then curl."""

import os
import subprocess
import sys
from collections.abc import Callable, Iterator

import pytest

from ebpf_lb.lab.cluster import Lab
from ebpf_lb.lessons.demo import manifest
from tests.lab.test_outside import until

Cli = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(scope="module")
def demo(lab: Lab) -> Iterator[str]:
    """What the demo prints, on the tests' lab."""
    done = subprocess.run(
        [sys.executable, "-m", "ebpf_lb.lessons.demo"],
        env={**os.environ, "EBPF_LB_LAB": lab.name},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    yield done.stdout
    lab.delete([manifest()])


def hostnames(lab: Lab) -> set[str]:
    return {pod.name for pod in lab.pods() if pod.name.startswith("hostnames-")}


def test_the_demo_shows_who_answers(demo: str, lab: Lab) -> None:
    service = lab.client.get("/api/v1/namespaces/default/services/hostnames")
    assert all(address in demo for address in service["spec"]["clusterIPs"])
    rows = {line.split()[0]: line.split()[-4:] for line in demo.splitlines() if line}
    assert hostnames(lab) <= rows.keys()
    assert all(int(count) > 0 for pod in hostnames(lab) for count in rows[pod])
    assert all(int(count) >= 30 for count in rows["answers"])


def curl(cli: Cli, host: str, url: str) -> subprocess.CompletedProcess[str]:
    return cli("exec", host, "--", "curl", "-sg", "--max-time", "20", url)


@pytest.mark.parametrize("host", ["node1", "pod"])
def test_curl_reaches_all_pods(demo: str, lab: Lab, cli: Cli, host: str) -> None:
    service = lab.client.get("/api/v1/namespaces/default/services/hostnames")
    url = f"http://{service['spec']['clusterIP']}/"
    source = host if host == "node1" else min(hostnames(lab))
    each = f"for i in $(seq 30); do curl -sg --max-time 20 {url} || exit; echo; done"
    done = cli("exec", source, "--", "sh", "-c", each)
    assert done.returncode == 0
    answers = done.stdout.split()
    assert len(answers) == 30 and set(answers) == hostnames(lab)


def test_curl_is_refused_at_once_when_no_pod_is_left(demo: str, lab: Lab, cli: Cli) -> None:
    service = lab.client.get("/api/v1/namespaces/default/services/hostnames")
    done = cli("scale", "hostnames", "0")
    assert done.returncode == 0, done.stderr
    url = f"http://{service['spec']['clusterIP']}/"
    could_not_connect = 7  # curl's status; 28 would be its time-out
    # until the agent knows, a pod that ends may answer, or be silent already
    until(lambda: curl(cli, "node1", url).returncode == could_not_connect, "it is not refused")
    done = curl(cli, "node1", url)
    assert done.returncode == could_not_connect

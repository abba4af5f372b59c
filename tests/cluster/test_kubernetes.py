"""The DaemonSet of `manifests/`, with the image of `make image`, in kube-proxy's place on a real
Kubernetes, by the rig beside this file.

One rig can run at a time; whatever happens, it is taken down again. `CNI=ptp make cluster` runs one
layout only, `PROXY=kube-proxy:nftables make cluster` shows what another proxy makes of it.
"""

import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.capabilities import LAB, Capability, needs
from tests.cluster.rig_control import PROGRAMS, agnhost, rig, running

ROOT = Path(__file__).parents[2]
IMAGE = ROOT / "build/image/ebpf-lb.oci.tar"
AGENT = f"manifests:{IMAGE}:{ROOT}/tests/cluster/manifests/base"
SPECS = (
    "Services should serve a basic endpoint from pods",
    "Services should serve multiport endpoints from pods",
    "KubeProxy should set TCP CLOSE_WAIT timeout",
)
OUTSIDE = (
    "Services should be able to create a functioning NodePort service",
    "Services should be rejected when no endpoints exist",
    "Services should support externalTrafficPolicy=Local for type=NodePort",
    "Services should implement NodePort and HealthCheckNodePort correctly when"
    " ExternalTrafficPolicy changes",
    "Services should fallback to local terminating endpoints when there are no ready endpoints"
    " with externalTrafficPolicy=Local",
    "LoadBalancers ExternalTrafficPolicy: Local .* should work for type=LoadBalancer",
    "LoadBalancers .* should only allow access from service loadbalancer source ranges",
    "Networking Granular Checks: Services should function for service endpoints using hostNetwork",
)
THE_PROGRAMS = Capability(
    "the cluster rig's programs",
    "`make cluster` builds them",
    lambda: (PROGRAMS / "e2e.test").exists(),
)
LAYOUTS = [layout for layout in ("bridge", "ptp") if os.environ.get("CNI", layout) == layout]

pytestmark = [needs(*LAB, THE_PROGRAMS), pytest.mark.timeout(900)]


@pytest.fixture(scope="module", params=LAYOUTS)
def cluster(request: pytest.FixtureRequest) -> Iterator[str]:
    """Three nodes, cluster DNS ready (its pods reach the API server by its ClusterIP)."""
    with running("--cni", request.param, "--proxy", os.environ.get("PROXY", AGENT)):
        yield request.param


@pytest.fixture(scope="module")
def pods(cluster: str, tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """One on each node."""
    labels = {"app": "asker"}
    container = {"name": "asker", "image": agnhost(), "imagePullPolicy": "Never", "args": ["pause"]}
    manifest = {
        "apiVersion": "apps/v1",
        "kind": "DaemonSet",
        "metadata": {"name": "asker"},
        "spec": {
            "selector": {"matchLabels": labels},
            "template": {"metadata": {"labels": labels}, "spec": {"containers": [container]}},
        },
    }
    file = tmp_path_factory.mktemp("cluster") / "asker.json"
    file.write_text(json.dumps(manifest))
    for words in (["apply", "-f", str(file)], ["rollout", "status", "ds/asker", "--timeout=60s"]):
        done = rig("kubectl", *words)
        assert done.returncode == 0, done.stdout
    listed = rig("kubectl", "get", "pods", "-l", "app=asker", "-o", "name").stdout.split()
    assert len(listed) == 3
    return listed


@pytest.mark.parametrize("transport", ["udp", "tcp"])
@pytest.mark.parametrize("server", ["10.96.0.10", "fd00:10:96::a"])
def test_dns_answers_in_pods(pods: list[str], server: str, transport: str) -> None:
    """By its Service's address, from the nodes where it does not run, too."""
    ask = ["dig", f"@{server}", "+short", "+time=1", "+tries=1", *(["+tcp"] * (transport == "tcp"))]
    for pod in pods:
        for _ in range(5):
            done = rig("kubectl", "exec", pod, "--", *ask, "kubernetes.default.svc.cluster.local")
            assert done.stdout.strip() == "10.96.0.1", f"{pod}: {done.stdout}"


@pytest.mark.parametrize("spec", SPECS)
def test_upstream_spec(cluster: str, spec: str) -> None:
    done = rig("e2e", "--focus", spec, "--procs", "1")
    assert done.returncode == 0, done.stdout
    assert "1 passed" in done.stdout, done.stdout


def test_upstream_specs_about_the_outside(cluster: str) -> None:
    done = rig("e2e", "--focus", "|".join(OUTSIDE), "--procs", "4")
    assert done.returncode == 0, done.stdout
    assert f"{len(OUTSIDE)} passed" in done.stdout, done.stdout

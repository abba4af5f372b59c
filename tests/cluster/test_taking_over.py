"""From a real kube-proxy to the DaemonSet of `manifests/`, and back, on a real cluster.

The image comes by `ctr images import`, the overlay by `kubectl apply -k`, as docs/taking-over.md
says. Sixty connections stand all the time, and new ones are opened all the time.
"""

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.capabilities import LAB, needs
from tests.cluster.rig_control import RIG, agnhost, kubectl, on, running, said
from tests.cluster.test_kubernetes import THE_PROGRAMS

ROOT = Path(__file__).parents[2]
IMAGE = ROOT / "build/image/ebpf-lb.oci.tar"
OVERLAY = ROOT / "manifests/overlays/beside-kube-proxy"
NODES = ("node1", "node2", "node3")
CGROUP = "/run/ebpf-lb-cgroup"
LABEL = "ebpf-lb.io/serves"
HOLDER = Path(__file__).parent / "holder.py"
EACH = 2  # connections for each way

pytestmark = [needs(*LAB, THE_PROGRAMS), pytest.mark.timeout(1500)]


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """kube-proxy serves, our image is on every node, and there are Services to ask."""
    assert IMAGE.exists(), "`make image` makes it"
    with running("--proxy", "kube-proxy:nftables"):
        folder = tmp_path_factory.mktemp("cluster")
        for node in NODES:
            said("exec", node, "--", "ctr", "-n", "k8s.io", "images", "import", str(IMAGE))
            inside = f"/sys/fs/cgroup/unified/krig-{node}"
            if not Path(inside).exists():
                inside = f"/sys/fs/cgroup/krig-{node}"
            # the DaemonSet mounts one path on all nodes, and these nodes share a machine
            mount = f"mkdir -p {CGROUP} && mountpoint -q {CGROUP} || mount --bind {inside} {CGROUP}"
            said("exec", node, "--", "sh", "-c", mount)
        file = folder / "web.json"
        file.write_text(json.dumps({"apiVersion": "v1", "kind": "List", "items": web()}))
        kubectl("apply", "-f", str(file))
        kubectl("rollout", "status", "ds/web", "--timeout=180s")
        yield


def web() -> list[dict[str, Any]]:
    labels = {"app": "web"}
    container = {
        "name": "web",
        "image": agnhost(),
        "imagePullPolicy": "Never",
        "args": ["netexec", "--http-port=8080"],
        "readinessProbe": {"httpGet": {"path": "/hostname", "port": 8080}, "periodSeconds": 2},
    }
    pods = {"metadata": {"labels": labels}, "spec": {"containers": [container]}}
    service = {
        "type": "LoadBalancer",
        "ipFamilyPolicy": "RequireDualStack",
        "selector": labels,
        "ports": [{"port": 80, "targetPort": 8080, "nodePort": 31480}],
    }
    return [
        {
            "apiVersion": "apps/v1",
            "kind": "DaemonSet",
            "metadata": {"name": "web"},
            "spec": {"selector": {"matchLabels": labels}, "template": pods},
        },
        {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "web"}, "spec": service},
    ]


def ways() -> dict[str, list[tuple[str, int]]]:
    """Who asks -> whom: pods and nodes by ClusterIP, NodePort and LoadBalancer address, outside by
    two NodePorts instead of the ClusterIP; both families."""
    until(lambda: len(balancer_addresses()) == 2, "the load balancer gives no addresses")
    service = json.loads(kubectl("get", "service", "web", "-o", "json"))
    inner: list[tuple[str, int]] = [(one, 80) for one in service["spec"]["clusterIPs"]]
    balanced: list[tuple[str, int]] = [(one, 80) for one in balancer_addresses()]
    node_ports = [[(f"172.30.0.1{n}", 31480), (f"fd30::1{n}", 31480)] for n in (1, 2)]
    everywhere = inner + node_ports[1] + balanced
    pods = json.loads(kubectl("get", "pods", "-l", "app=web", "-o", "json"))["items"]
    by_node = {pod["spec"]["nodeName"]: pod["status"]["podIP"] for pod in pods}
    found: dict[str, list[tuple[str, int]]] = {"client": node_ports[0] + node_ports[1] + balanced}
    for node in ("node1", "node3"):
        found[node] = everywhere
        found[f"{node} {by_node[node]}"] = everywhere
    return found


def balancer_addresses() -> list[str]:
    service = json.loads(kubectl("get", "service", "web", "-o", "json"))
    return [one["ip"] for one in service["status"].get("loadBalancer", {}).get("ingress", [])]


def until(is_so: Any, otherwise: str, seconds: float = 120) -> None:
    deadline = time.monotonic() + seconds
    while not is_so():
        assert time.monotonic() < deadline, otherwise
        time.sleep(1)


class Held:
    """Connections that stand, from all places, and new ones each second."""

    def __init__(self, stack: ExitStack) -> None:
        self._all: dict[str, subprocess.Popen[str]] = {}
        for who, targets in ways().items():
            host, _, pod = who.partition(" ")
            argv = [sys.executable, str(HOLDER), json.dumps([pod, EACH, targets])]
            process = subprocess.Popen(
                on(host, *argv), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
            )
            stack.callback(_end, process)
            self._all[who] = process
        self.count = sum(self.report()[who]["held"] for who in self._all)

    def report(self) -> dict[str, Any]:
        """What each has seen since the last report."""
        found = {}
        for process in self._all.values():
            assert process.stdin is not None
            process.stdin.write("\n")
            process.stdin.flush()
        for who, process in self._all.items():
            assert process.stdout is not None
            found[who] = json.loads(process.stdout.readline())
        return found

    def nothing_lost(self, when: str) -> None:
        time.sleep(5)
        for who, seen in self.report().items():
            assert not seen["lost"] and not seen["refused"], f"{when}: {who}: {seen}"
            assert seen["asked"] and seen["opened"], f"{when}: {who}: {seen}"


def _end(process: "subprocess.Popen[str]") -> None:
    process.kill()
    process.communicate()


@contextmanager
def overlay(folder: Path) -> Iterator[Path]:
    """The overlay, with what every operator has to say, and where this rig's cgroups are."""
    said_by_operator = {
        "apiServerHost": "172.30.0.10",
        "apiServerPort": "6443",
        "config.yaml": "clusterCidrs: [10.244.0.0/16, 'fd00:10:244::/48']\n"
        "conntrackMaxPerCore: 0\nhealthzBindAddress: 0.0.0.0:10256\n",
    }
    config = {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": "ebpf-lb", "namespace": "kube-system"},
        "data": said_by_operator,
    }
    where = [
        {"op": "replace", "path": "/spec/template/spec/volumes/2/hostPath/path", "value": CGROUP}
    ]
    content = {
        "apiVersion": "kustomize.config.k8s.io/v1beta1",
        "kind": "Kustomization",
        "resources": [os.path.relpath(OVERLAY, folder)],
        "patches": [
            {"patch": json.dumps(config)},
            {"patch": json.dumps(where), "target": {"kind": "DaemonSet", "name": "ebpf-lb"}},
        ],
    }
    (folder / "kustomization.yaml").write_text(json.dumps(content))
    yield folder


def plug(action: str, node: str) -> None:
    """kube-proxy of a node: `start` or `stop`, without its --cleanup."""
    code = (
        f"import sys; sys.path.insert(0, {str(RIG.parent)!r})\n"
        "from riglib import conf, proxies, proc\n"
        "state = conf.State(); proxy = proxies.plug(state); node = state.node(sys.argv[2])\n"
        "proxy.start(node) if sys.argv[1] == 'start' else proc.stop(state, proxy.process(node))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, action, node], text=True, capture_output=True, check=False
    )
    assert done.returncode == 0, done.stderr


def agent_on(node: str) -> str | None:
    """The name of its pod, once the container runs."""
    words = ["-n", "kube-system", "get", "pods", "-l", "k8s-app=ebpf-lb", "-o", "json"]
    for pod in json.loads(kubectl(*words))["items"]:
        states = pod["status"].get("containerStatuses", [])
        if pod["spec"]["nodeName"] == node and states and "running" in states[0]["state"]:
            return str(pod["metadata"]["name"])
    return None


def in_agent(node: str, *command: str) -> str:
    pod = agent_on(node)
    assert pod is not None
    return kubectl("-n", "kube-system", "exec", pod, "-c", "agent", "--", *command)


def kube_proxys_rules(node: str) -> bool:
    return "kube-proxy" in said("exec", node, "--", "nft", "list", "tables")


def test_sixty_connections_live_there_and_back(cluster: None, tmp_path: Path) -> None:
    with ExitStack() as stack, overlay(tmp_path) as folder:
        held = Held(stack)
        assert held.count == 60
        held.nothing_lost("by kube-proxy")
        kubectl("apply", "-k", str(folder))
        for node in NODES:
            kubectl("label", "node", node, f"{LABEL}=true")
        for node in NODES:
            until(lambda node=node: agent_on(node) is not None, f"no agent on {node}")
        time.sleep(15)
        held.nothing_lost("both beside each other")
        for node in NODES:
            plug("stop", node)
        kubectl("-n", "kube-system", "rollout", "status", "ds/ebpf-lb", "--timeout=180s")
        time.sleep(5)
        held.nothing_lost("by ebpf-lb, kube-proxy's rules there still")
        for node in NODES:
            assert "This node is well." in in_agent(node, "ebpf-lb", "status")
            assert kube_proxys_rules(node)
        kubectl("-n", "kube-system", "rollout", "restart", "ds/ebpf-lb")
        kubectl("-n", "kube-system", "rollout", "status", "ds/ebpf-lb", "--timeout=180s")
        held.nothing_lost("over a rolling update")
        for node in NODES:
            plug("start", node)
        time.sleep(5)
        for node in NODES:
            kubectl("label", "node", node, f"{LABEL}-")
        for node in NODES:
            until(lambda node=node: agent_on(node) is None, f"the agent stays on {node}")
        held.nothing_lost("by kube-proxy again, with what ebpf-lb has left")
        for node in NODES:
            cleanup = ["env", "EBPF_LB_CACHE=/run/none", f"{ROOT}/.venv/bin/ebpf-lb", "cleanup"]
            cleanup += ["--cgroup", CGROUP]  # and not what this machine has compiled
            said("exec", node, "--", *cleanup)
        time.sleep(5)
        held.nothing_lost("by kube-proxy alone")
    kubectl("delete", "-k", str(tmp_path))

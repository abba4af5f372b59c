"""From a real kube-proxy to the DaemonSet of `manifests/`, and back, on a real cluster, as
docs/taking-over.md and docs/operating.md say, by the very commands that they tell to type.

Sixty connections stand all the time, sixty more that ebpf-lb has translated stand on the way back,
and new ones are opened all the time. `CNI=bridge` or `CNI=ptp` runs one layout only.
"""

import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from tests.capabilities import LAB, needs
from tests.cluster.rig_control import RIG, agnhost, kubectl, on, rig, running, said
from tests.cluster.test_kubernetes import IMAGE, THE_PROGRAMS
from tests.support.documented import commands

OURS = Path(__file__).parent / "manifests"
NODES = ("node1", "node2", "node3")
# each layout of pods' networks, and each mode of kube-proxy
CLUSTERS = [
    one
    for one in (("bridge", "nftables"), ("ptp", "iptables"))
    if os.environ.get("CNI", one[0]) == one[0]
]
HOLDER = Path(__file__).parent / "holder.py"
EACH = 2  # connections for each way

pytestmark = [needs(*LAB, THE_PROGRAMS), pytest.mark.timeout(1500)]


@pytest.fixture(scope="module", params=CLUSTERS, ids="-".join)
def cluster(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[str]:
    """kube-proxy serves, in the mode that this is, our image is on every node, and there are
    Services to ask."""
    assert IMAGE.exists(), "`make image` makes it"
    layout, mode = request.param
    with running("--cni", layout, "--proxy", f"kube-proxy:{mode}"):
        folder = tmp_path_factory.mktemp("cluster")
        for node in NODES:
            said("exec", node, "--", "ctr", "-n", "k8s.io", "images", "import", str(IMAGE))
        file = folder / "web.json"
        file.write_text(json.dumps({"apiVersion": "v1", "kind": "List", "items": web()}))
        kubectl("apply", "-f", str(file))
        kubectl("rollout", "status", "ds/web", "--timeout=180s")
        yield mode


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


def plug(action: str, node: str) -> bool:
    """kube-proxy of a node: `start`, `stop` (without its --cleanup), or whether it is `ready`."""
    code = (
        f"import sys; sys.path.insert(0, {str(RIG.parent)!r})\n"
        "from riglib import conf, proxies, proc\n"
        "state = conf.State(); proxy = proxies.plug(state); node = state.node(sys.argv[2])\n"
        "done = {'start': lambda: proxy.start(node) or True, 'ready': lambda: proxy.ready(node),\n"
        "        'stop': lambda: proc.stop(state, proxy.process(node)) or True}[sys.argv[1]]()\n"
        "print(done)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, action, node], text=True, capture_output=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip() == "True"


def pod_on(node: str, labels: str = "k8s-app=ebpf-lb") -> str | None:
    """The name of its pod with these labels, whatever state it is in."""
    words = ["-n", "kube-system", "get", "pods", "-l", labels, "-o", "json"]
    words.append(f"--field-selector=spec.nodeName={node}")
    found = [one["metadata"]["name"] for one in json.loads(kubectl(*words))["items"]]
    return found[0] if found else None


def agent_serves(node: str) -> bool:
    """`/livez` is the new agent's word: what it serves does not wait for kube-proxy's end."""
    name = pod_on(node)
    if name is None:
        return False
    pod = json.loads(kubectl("-n", "kube-system", "get", "pod", name, "-o", "json"))
    states = pod["status"].get("containerStatuses", [])
    if not states or "running" not in states[0]["state"]:
        return False
    done = rig("kubectl", "-n", "kube-system", "exec", name, "-c", "agent", "--",
               "ebpf-lb", "status")  # fmt: skip
    return "no agent" not in done.stdout.lower() and done.returncode in (0, 1)


def is_well(node: str) -> bool:
    name = pod_on(node)
    words = ["exec", str(name), "-c", "agent", "--", "ebpf-lb", "status"]
    return "This node is well." in rig("kubectl", "-n", "kube-system", *words).stdout


def pods_answer() -> bool:
    """All of the web's, where the API server says that they are."""
    pods = json.loads(kubectl("get", "pods", "-l", "app=web", "-o", "json"))["items"]
    addresses = [one["ip"] for pod in pods for one in pod["status"].get("podIPs", [])]
    urls = [f"http://[{ip}]:8080/hostname" if ":" in ip else f"http://{ip}:8080/hostname"
            for ip in addresses]  # fmt: skip
    return len(urls) == 2 * len(NODES) and all(
        subprocess.run(on("client", "curl", "-sgfm5", url), capture_output=True, check=False)
        .returncode == 0
        for url in urls
    )  # fmt: skip


def in_agent(node: str, line: str) -> str:
    """What docs/operating.md tells to type there."""
    assert line in commands("operating.md")
    pod = pod_on(node)
    assert pod is not None
    return kubectl("-n", "kube-system", "exec", pod, "-c", "agent", "--", *line.split())


def follow(page: str, line: str, **said: str) -> str:
    """A command for a cluster that a page tells to type, with an operator's words in it, and with
    what is said of this rig on the manifests."""
    assert line in commands(page), f"{page} says nothing of `{line}`"
    program, *words = line.split()
    assert program == "kubectl"
    for word, meant in said.items():
        words = [one.replace(word, meant) for one in words]
    folder = re.compile(r"manifests/(?:overlays/)?")
    return kubectl(*[folder.sub(f"{OURS}/", one) for one in words])


def test_sixty_connections_live_there_and_back(cluster: str) -> None:
    page = "taking-over.md"
    with ExitStack() as stack:
        held = Held(stack)
        assert held.count == 60
        held.nothing_lost("by kube-proxy")
        follow(page, "kubectl apply -k manifests/overlays/beside-kube-proxy")
        for node in NODES:
            follow(page, "kubectl label node NODE ebpf-lb.io/serves=true", NODE=node)
        for node in NODES:
            until(lambda node=node: agent_serves(node), f"no agent on {node}")
        held.nothing_lost("both beside each other")
        for node in NODES:
            plug("stop", node)
        kubectl("-n", "kube-system", "rollout", "status", "ds/ebpf-lb", "--timeout=180s")
        held.nothing_lost("by ebpf-lb, kube-proxy's rules there still")
        for node in NODES:
            well(node)
            assert kube_proxys_rules(node, cluster)
        upgrade_and_downgrade(held)
        for node in NODES:
            said("restart", node, "--kubelet")
        held.nothing_lost("over kubelets' restarts")
        with ExitStack() as others:
            ours = Held(others)
            assert ours.count == 60
            for node in NODES:
                plug("start", node)
            for node in NODES:
                follow(page, "kubectl label node NODE ebpf-lb.io/serves-", NODE=node)
            for node in NODES:
                until(lambda node=node: pod_on(node) is None, f"the agent stays on {node}")
                until(lambda node=node: plug("ready", node), f"kube-proxy of {node} is not ready")
            held.nothing_lost("by kube-proxy again, with what ebpf-lb has left")
            follow(page, "kubectl apply -k manifests/cleanup")
            for node in NODES:
                until(
                    lambda node=node: "are served until they end" in drains(node), f"{node} drains"
                )
            for each in (held, ours):
                each.nothing_lost("kube-proxy's and what ebpf-lb had translated")
            assert all(pinned(node) for node in NODES)
        follow(page, "kubectl -n kube-system rollout status daemonset/ebpf-lb-cleanup")
        assert not any(pinned(node) for node in NODES)
        held.nothing_lost("by kube-proxy alone")
    follow(page, "kubectl delete -k manifests/cleanup")
    kubectl("delete", "-k", f"{OURS}/beside-kube-proxy")


def well(node: str) -> None:
    """By all that docs/operating.md has for that."""
    assert "This node is well." in in_agent(node, "ebpf-lb status")
    for command in ("verify", "doctor", "config show"):
        assert in_agent(node, f"ebpf-lb {command} --config /etc/ebpf-lb/config.yaml")


def upgrade_and_downgrade(held: Held) -> None:
    """To the same under another name: what changes is the DaemonSet, and so every pod."""
    page, name = "operating.md", "docker.io/library/ebpf-lb"
    for node in NODES:
        said("exec", node, "--", "ctr", "-n", "k8s.io", "images", "tag", f"{name}:0.1.0",
             f"{name}:0.1.1")  # fmt: skip
    done = "kubectl -n kube-system rollout status daemonset/ebpf-lb"
    line = (
        "kubectl -n kube-system set image daemonset/ebpf-lb agent=ebpf-lb:0.1.0 init=ebpf-lb:0.1.0"
    )
    follow(page, line, **{"0.1.0": "0.1.1"})
    follow(page, done)
    held.nothing_lost("over an upgrade")
    follow(page, "kubectl -n kube-system rollout undo daemonset/ebpf-lb")
    follow(page, done)
    held.nothing_lost("over a downgrade")


def drains(node: str) -> str:
    """What `cleanup` has said there."""
    pod = pod_on(node, "k8s-app=ebpf-lb-cleanup")
    return rig("kubectl", "-n", "kube-system", "logs", pod, "-c", "cleanup").stdout if pod else ""


def pinned(node: str) -> bool:
    return rig("exec", node, "--", "test", "-e", "/sys/fs/bpf/ebpf-lb").returncode == 0


def kube_proxys_rules(node: str, mode: str) -> bool:
    if mode == "nftables":
        return "kube-proxy" in said("exec", node, "--", "nft", "list", "tables")
    return "KUBE-SERVICES" in said("exec", node, "--", "iptables-save", "-t", "nat")


def test_a_node_comes_back(cluster: str) -> None:
    """Restarted, it is served as before, by ebpf-lb alone."""
    page = "taking-over.md"
    for node in NODES:
        plug("stop", node)
    follow(page, "kubectl apply -k manifests/base")
    follow("operating.md", "kubectl -n kube-system rollout status daemonset/ebpf-lb")
    said("restart", "node3")
    until(lambda: is_well("node3"), "node3 is not well", 300)
    until(pods_answer, "not all pods are back", 300)
    well("node3")
    assert not kube_proxys_rules("node3", cluster)
    with ExitStack() as stack:
        held = Held(stack)
        assert held.count == 60
        held.nothing_lost("after a node's restart")

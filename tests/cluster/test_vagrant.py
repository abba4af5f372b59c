"""The Vagrantfile's machines, provisioned as it stands, in namespaces (machines/__init__.py).

`make vagrant` runs it; what the machines said is in `~/.cache/kube-rig/machines/said.txt`.
"""

import ipaddress
import json
import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from tests.capabilities import LAB, needs
from tests.cluster.machines import machine as vagrant
from tests.cluster.machines import stock
from tests.cluster.machines.images import agnhost
from tests.cluster.machines.machine import Machine, until
from tests.cluster.test_kubernetes import THE_PROGRAMS

pytestmark = [needs(*LAB, THE_PROGRAMS), pytest.mark.timeout(3600)]

NODES = 2
SERVED = """
apiVersion: apps/v1
kind: DaemonSet
metadata: {name: web}
spec:
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec:
      terminationGracePeriodSeconds: 0
      tolerations: [{operator: Exists}]
      containers:
        - {name: c, image: "IMAGE", args: [netexec], ports: [{containerPort: 8080}]}
---
apiVersion: v1
kind: Service
metadata: {name: web}
spec:
  type: NodePort
  ipFamilyPolicy: RequireDualStack
  selector: {app: web}
  ports: [{port: 80, targetPort: 8080, nodePort: 30080}]
"""


@pytest.fixture(scope="module")
def cluster() -> Iterator[list[Machine]]:
    """Provisioned side by side but for what the others need of the first; agents run."""
    os.environ["NODES"] = str(NODES)
    stock.CACHE.mkdir(parents=True, exist_ok=True)
    with (stock.CACHE / "said.txt").open("w") as said, vagrant.machines(said) as machines:
        provision(machines)
        control = machines[0]
        (control.root / "srv" / "web.yaml").write_text(SERVED.replace("IMAGE", agnhost()))
        kubectl(control, "apply", "-f", "/srv/web.yaml")
        for words in (["daemonset/web"], ["-n", "kube-system", "deployment/coredns"]):
            kubectl(control, "rollout", "status", "--timeout=300s", *words)
        yield machines


def provision(machines: list[Machine]) -> None:
    """In the order of the Vagrantfile, once more if it was done before."""
    names = [[script["name"] for script in machine.scripts] for machine in machines]
    assert names == [["network", "machine", kind, "agent"]
                     for kind in ("control-plane", *["worker"] * (NODES - 1))]  # fmt: skip

    def begin(machine: Machine) -> None:
        machine.provision("network")
        machine.provision("machine")

    with ThreadPoolExecutor() as pool:
        list(pool.map(begin, machines))
    for machine in machines:
        vagrant.load_images(machine)
    for machine, (_, _, *rest) in zip(machines, names, strict=True):
        for name in rest:
            machine.provision(name)


def kubectl(control: Machine, *words: str) -> str:
    return control.run("kubectl", *words)


def get(control: Machine, *words: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(kubectl(control, "get", *words, "-o", "json"))["items"]
    return found


def pods(control: Machine) -> dict[str, dict[str, Any]]:
    """Those of the DaemonSet, by their node."""
    return {pod["spec"]["nodeName"]: pod for pod in get(control, "pods", "-l", "app=web")}


def in_pod(control: Machine, node: str, *words: str) -> str:
    """What it says in the end: after a reboot the API server knows of pods that are there no more,
    and may be away itself."""
    found = control.run("kubectl", "get", "pods", "-l", "app=web", "-o", "name",
                        f"--field-selector=spec.nodeName={node}", check=False).split()  # fmt: skip
    return control.run("kubectl", "exec", *found[:1], "--", *words, check=False)


def curl(*words: str) -> list[str]:
    return ["curl", "-sgf", "-m10", *words]


def test_nodes_are_ready_and_their_pod_networks_are_the_cnis(cluster: list[Machine]) -> None:
    nodes = {node["metadata"]["name"]: node for node in get(cluster[0], "nodes")}
    assert set(nodes) == {machine.name for machine in cluster}
    for machine in cluster:
        node = nodes[machine.name]
        assert {c["type"]: c["status"] for c in node["status"]["conditions"]}["Ready"] == "True"
        own = [machine.scripts[0]["env"][key] for key in ("PODS", "PODS6")]
        assert node["spec"]["podCIDRs"] == own
        addresses = [a["address"] for a in node["status"]["addresses"] if a["type"] == "InternalIP"]
        assert addresses == [machine.scripts[0]["env"][key] for key in ("ADDRESS", "ADDRESS6")]
        given = [one["ip"] for one in pods(cluster[0])[machine.name]["status"]["podIPs"]]
        assert all(
            ipaddress.ip_address(ip) in ipaddress.ip_network(network)
            for ip, network in zip(given, own, strict=True)
        )


def test_there_is_no_kube_proxy(cluster: list[Machine]) -> None:
    everything = get(cluster[0], "pods", "-A")
    assert not [p for p in everything if p["metadata"]["name"].startswith("kube-proxy")]
    for machine in cluster:
        assert machine.run("systemctl", "is-active", "ebpf-lb").strip() == "active"


def serves(cluster: list[Machine]) -> None:
    """Both families: each pod reaches each by the ClusterIP, outside does by the nodes' port."""
    control = cluster[0]
    names = {pod["metadata"]["name"] for pod in pods(control).values()}
    [service] = (s for s in get(control, "services") if s["metadata"]["name"] == "web")
    addresses = service["spec"]["clusterIPs"]
    assert len(addresses) == 2
    for address in addresses:
        host = f"[{address}]" if ":" in address else address
        for machine in cluster:
            url = f"http://{host}/hostname"

            def all_answered(node: str = machine.name, url: str = url) -> bool:
                script = f"for i in $(seq 20); do curl -sgm5 {url} && echo; done"
                return set(in_pod(control, node, "sh", "-c", script).split()) == names

            until(all_answered, f"all pods answer at {url} on {machine.name}")
    for machine in cluster:
        url = f"http://{machine.address}:30080/hostname"

        def both_answer(url: str = url) -> bool:
            script = f"for i in $(seq 20); do curl -sgm5 {url} && echo; done || true"
            return set(vagrant.outside("sh", "-c", script).split()) == names

        until(both_answer, f"all pods answer at {url}")


def test_services(cluster: list[Machine]) -> None:
    serves(cluster)


def reaches_outside(cluster: list[Machine]) -> None:
    """By its name, and the web server sees the node: a pod's address means nothing there."""
    for machine in cluster:
        own = machine.run("ip", "-o", "-4", "address", "show", "dev", "eth0")

        def is_node(machine: Machine = machine, own: str = own) -> bool:
            seen = in_pod(cluster[0], machine.name, *curl(f"http://{vagrant.NAME}/client"))
            return bool(seen.strip()) and f" {seen.strip()}/" in own

        until(is_node, f"a pod of {machine.name} reaches what is outside")


def test_pods_reach_names_outside(cluster: list[Machine]) -> None:
    reaches_outside(cluster)


def test_provisioning_twice_is_as_good_as_once(cluster: list[Machine]) -> None:
    provision(cluster)
    serves(cluster)


@pytest.mark.parametrize("number", range(NODES))
def test_it_lasts_over_a_reboot(cluster: list[Machine], number: int) -> None:
    machine = cluster[number]
    machine.reboot()
    until(lambda: machine.run("systemctl", "is-active", "ebpf-lb", check=False).strip() == "active",
          f"the agent of {machine.name} runs")  # fmt: skip
    env = machine.scripts[0]["env"]
    for pair in env["PEERS"].split():
        network, _, way = pair.partition("=")
        family = "-6" if ":" in network else "-4"
        assert f" via {way} dev eth1" in machine.run("ip", family, "route", "show", network)
    assert f"{env['ADDRESS6']}/64" in machine.run("ip", "-6", "address", "show", "dev", "eth1")
    until(lambda: _all_ready(cluster), "all pods are ready again")
    serves(cluster)
    reaches_outside(cluster)


def _all_ready(cluster: list[Machine]) -> bool:
    """The API server may be away for a while: it was on the machine itself."""
    said = cluster[0].run("kubectl", "get", "pods", "-A", "-o", "json", check=False)
    try:
        items = json.loads(said)["items"]
    except ValueError:
        return False
    conditions = [
        {c["type"]: c["status"] for c in pod["status"].get("conditions", [])} for pod in items
    ]
    return bool(items) and all(one.get("Ready") == "True" for one in conditions)

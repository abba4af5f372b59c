"""The lab's wires, in every layout, with no load balancer: who reaches whom, and seen as whom."""

import ipaddress
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from ebpf_lb.lab.cluster import Lab
from ebpf_lb.lab.options import Options
from ebpf_lb.lab.pods import Pod
from tests.capabilities import LAB, needs
from tests.support.checker import SETTLED_S
from tests.support.leftovers import leftovers

pytestmark = needs(*LAB)

LAYOUTS = {
    "dual-routes-bridge": Options(nodes=2, proxy="none", dns=False),
    "dual-vxlan-ptp": Options(
        nodes=2, proxy="none", dns=False, network="vxlan", pods="ptp", clients=2
    ),
    "ipv4-vxlan-bridge": Options(nodes=2, proxy="none", dns=False, network="vxlan", family="ipv4"),
    "dual-udp-ptp": Options(nodes=2, proxy="none", dns=False, network="udp", pods="ptp"),
    "ipv6-udp-bridge": Options(nodes=2, proxy="none", dns=False, network="udp", family="ipv6"),
    "ipv6-routes-ptp": Options(nodes=2, proxy="none", dns=False, pods="ptp", family="ipv6"),
}


def pod(name: str, node: str, *, host_network: bool = False) -> dict[str, object]:
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "namespace": "default"},
        "spec": {
            "nodeName": node,
            "hostNetwork": host_network,
            "containers": [{"name": "c", "image": "agnhost", "args": ["netexec"]}],
        },
    }


@pytest.fixture(scope="module", params=LAYOUTS.values(), ids=LAYOUTS.keys())
def lab(request: pytest.FixtureRequest) -> Iterator[Lab]:
    made = Lab(f"n{os.getpid()}")
    made.up(request.param)
    try:
        for manifest in (
            pod("a", "node1"),
            pod("b", "node1"),
            pod("c", "node2"),
            pod("h", "node2", host_network=True),
        ):
            made.client.create("/api/v1/namespaces/default/pods", manifest)
        wait_for_ready(made, 4)
        yield made
    finally:
        made.down()
    assert leftovers(made.name) == []


def wait_for_ready(lab: Lab, count: int) -> None:
    end = time.monotonic() + SETTLED_S
    while True:
        items = lab.client.get("/api/v1/pods")["items"]
        ready = [
            item["metadata"]["name"]
            for item in items
            for condition in item["status"].get("conditions") or []
            if condition["type"] == "Ready" and condition["status"] == "True"
        ]
        if len(ready) == count == len(items):
            return
        assert time.monotonic() < end, f"ready: {ready}"
        time.sleep(0.02)


def client_seen(lab: Lab, source: str, address: str) -> str:
    """The address that a pod's server sees when `source` asks it."""
    host = f"[{address}]" if ":" in address else address
    done = lab.exec(source, ["curl", "-sS", "-m20", f"http://{host}:8080/clientip"])
    assert done.returncode == 0, f"{source} -> {address}: {done.stderr}"
    return done.stdout.rpartition(":")[0].strip("[]")


def pods(lab: Lab) -> dict[str, Pod]:
    return {pod.name: pod for pod in lab.pods()}


def test_pods_reach_pods_as_themselves(lab: Lab) -> None:
    for source in "abc":
        for target in "abc":
            own = pods(lab)[source].addresses
            reached = [client_seen(lab, source, a) for a in pods(lab)[target].addresses]
            assert tuple(reached) == own


def test_pods_reach_other_nodes_masqueraded(lab: Lab) -> None:
    node1 = lab.node("node1").addresses
    seen = tuple(client_seen(lab, "a", address) for address in pods(lab)["h"].addresses)
    assert seen == node1


def test_nodes_reach_pods_by_an_address_of_their_own(lab: Lab) -> None:
    own = {i["local"] for i in addresses(lab, "node2")}
    for target in ("a", "c"):
        for address in pods(lab)[target].addresses:
            assert client_seen(lab, "node2", address) in own


def addresses(lab: Lab, host: str) -> list[dict[str, str]]:
    links = json.loads(lab.exec(host, ["ip", "-j", "address"], check=True).stdout)
    return [address for link in links for address in link["addr_info"]]


def test_clients_and_control_plane_reach_nodes(lab: Lab) -> None:
    for source in ("client", f"client{lab.options.clients}", "control"):
        for address in lab.node("node2").addresses:
            assert ipaddress.ip_address(client_seen(lab, source, address))


def test_clients_do_not_know_the_way_to_pods(lab: Lab) -> None:
    """The router does: as a cloud's would, for what was sent there by a node."""
    for address in pods(lab)["a"].addresses:
        assert client_seen(lab, "router", address)


def test_hosts_have_no_half_ready_addresses(lab: Lab) -> None:
    for host in (*lab.hosts(), "a", "c"):
        assert not [a for a in addresses(lab, host) if a.get("tentative") or a.get("dadfailed")]


def test_host_network_pods_live_on_their_node(lab: Lab) -> None:
    host_pod = pods(lab)["h"]
    assert host_pod.addresses == lab.node("node2").addresses
    assert host_pod.netns == lab.node("node2").netns
    assert host_pod.cgroup.parent == lab.node("node2").cgroup / "pods"


def test_large_packets_arrive(lab: Lab) -> None:
    """The pods' MTU leaves room for what is put around their packets."""
    address = pods(lab)["c"].addresses[0]
    host = f"[{address}]" if ":" in address else address
    size = 20_000_000
    url = f"http://{host}:8080/source?bytes={size}"
    done = lab.exec("a", ["curl", "-sS", "-m60", "-o/dev/null", "-w%{size_download}", url])
    assert done.stdout == str(size), done.stderr


def test_a_removed_pod_leaves_nothing(lab: Lab) -> None:
    lab.client.create("/api/v1/namespaces/default/pods", pod("short", "node1"))
    wait_for_ready(lab, 5)
    short = pods(lab)["short"]
    lab.client.delete("/api/v1/namespaces/default/pods/short", grace_period_s=0)
    wait_for_ready(lab, 4)
    end = time.monotonic() + SETTLED_S
    while "short" in pods(lab):
        assert time.monotonic() < end
        time.sleep(0.01)
    assert not short.process.alive
    assert not short.netns.exists()
    assert not short.cgroup.exists()
    links = lab.exec("node1", ["ip", "-brief", "link", "show", "type", "veth"]).stdout
    assert len(links.splitlines()) == 3  # eth0 and two pods


def test_a_deleted_pod_is_ended_and_let_go_of(lab: Lab) -> None:
    """With a grace period, as controllers delete: the kubelet confirms, and not at its end."""
    lab.client.create("/api/v1/namespaces/default/pods", pod("graceful", "node1"))
    wait_for_ready(lab, 5)
    began = time.monotonic()
    deleted = lab.client.delete("/api/v1/namespaces/default/pods/graceful")
    wait_for_ready(lab, 4)
    grace_s = deleted["metadata"]["deletionGracePeriodSeconds"]
    assert time.monotonic() - began < 0.8 * grace_s


def test_two_pods_that_want_one_port_of_the_node(lab: Lab) -> None:
    """The second is reported as not running, and starts when the first is gone."""
    path = "/api/v1/namespaces/default/pods"
    lab.client.create(path, pod("h2", "node2", host_network=True))
    end = time.monotonic() + SETTLED_S
    while not lab.client.get(f"{path}/h2")["status"].get("message"):
        assert time.monotonic() < end
        time.sleep(0.05)
    assert "did not open its ports" in lab.client.get(f"{path}/h2")["status"]["message"]
    lab.client.delete(f"{path}/h", grace_period_s=0)
    wait_for_ready(lab, 4)
    lab.client.delete(f"{path}/h2", grace_period_s=0)
    lab.client.create(path, pod("h", "node2", host_network=True))
    wait_for_ready(lab, 4)


def test_states_are_told(lab: Lab) -> None:
    status = lab.status()
    assert [node["name"] for node in status["nodes"]] == ["node1", "node2"]
    assert {pod["name"]: pod["state"] for pod in status["pods"]}["a"] == "ready"
    assert status["api_server"]["health"] == "healthy"
    assert Path(status["nodes"][0]["bpffs"]).is_dir()


def test_a_node_reaches_the_api_server_by_its_kubeconfig(lab: Lab) -> None:
    """Over TLS, with the token; the environment of a node's processes names the file."""
    script = (
        "from kubernetes import client, config; config.load_kube_config(); "
        "print(*sorted(n.metadata.name for n in client.CoreV1Api().list_node().items))"
    )
    done = lab.exec("node1", [sys.executable, "-c", script])
    assert done.stdout == "node1 node2\n", done.stderr


def test_an_agents_health_is_asked_on_its_node(lab: Lab) -> None:
    assert not lab.agent_healthy("node1")
    words = [
        sys.executable,
        "-S",
        "-s",
        "-m",
        "ebpf_lb.containers.podserver",
        "--name=x",
        "--tcp=10256",
    ]
    environment = {"PYTHONPATH": str(Path(__file__).parents[3])}
    with lab.popen("node1", words, env=environment, stdout=subprocess.PIPE) as stand_in:
        assert stand_in.stdout is not None
        stand_in.stdout.readline()  # its ports are open
        assert lab.agent_healthy("node1")
        assert not lab.agent_healthy("node2")
        stand_in.kill()
    assert lab.agent_process("node1") is None  # it was none of ours

"""The unit of `manifests/systemd`, started by a real systemd: a Debian root in namespaces, with
ebpf-lb as `make image` has it, an API server and an endpoint outside.
"""

import json
import subprocess
import sys
import tarfile
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from ebpf_lb.lab.objects.client import Client
from tests.capabilities import LAB, needs
from tests.cluster.machines import machine as machines
from tests.cluster.machines import stock
from tests.cluster.machines.machine import GATEWAY, HOST, OUTSIDE, Machine, until
from tests.cluster.test_kubernetes import IMAGE, ROOT, THE_PROGRAMS

pytestmark = [needs(*LAB, THE_PROGRAMS), pytest.mark.timeout(900)]

UNIT = ROOT / "manifests/systemd/ebpf-lb.service"
ADDRESS, PORT = "192.168.56.11", 6443
CLUSTER_IP, NODE_PORT = "10.96.0.80", 30080
SERVER = """
import http.server, sys
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.end_headers()
        self.wfile.write(b"well")
http.server.HTTPServer((sys.argv[1], 8080), Handler).serve_forever()
"""
OBJECTS: dict[str, Any] = {
    "/api/v1/nodes": {
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {"name": "node1"},
        "spec": {"podCIDR": "10.244.1.0/24", "podCIDRs": ["10.244.1.0/24"]},
    },
    "/api/v1/namespaces/default/services": {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": "web", "namespace": "default"},
        "spec": {
            "type": "NodePort",
            "clusterIP": CLUSTER_IP,
            "ports": [{"port": 80, "targetPort": 8080, "nodePort": NODE_PORT}],
        },
    },
    "/apis/discovery.k8s.io/v1/namespaces/default/endpointslices": {
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": {
            "name": "web-1",
            "namespace": "default",
            "labels": {"kubernetes.io/service-name": "web"},
        },
        "addressType": "IPv4",
        "endpoints": [{"addresses": [HOST], "conditions": {"ready": True}}],
        "ports": [{"port": 8080, "protocol": "TCP"}],
    },
}


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Machine]:
    """It is up; what the unit's head asks for is there, and the unit is not started."""
    folder = tmp_path_factory.mktemp("systemd")
    api = folder / "api"
    api.mkdir()
    stock.CACHE.mkdir(parents=True, exist_ok=True)
    with ExitStack() as stack:
        said = stack.enter_context((stock.CACHE / "systemd.txt").open("w"))
        machines.networks(stack)
        made = Machine("node1", 1, ADDRESS, [], folder / "root", said)
        root_of(made)
        stack.callback(made.end)
        for words in (
            ["-m", "ebpf_lb.apiserver", "--dir", api, "--address", GATEWAY, "--port", PORT,
             "--unix", api / "socket", "--service-cidr", "10.96.0.0/16"],
            ["-c", SERVER, HOST],
        ):  # fmt: skip
            argv = ["nsenter", f"--net=/run/netns/{OUTSIDE}", sys.executable, *map(str, words)]
            process = subprocess.Popen(argv, cwd=ROOT, stdout=said, stderr=said)
            stack.callback(process.wait)
            stack.callback(process.kill)
        until(lambda: (api / "socket").exists(), "the API server listens")
        client = Client(api / "socket")
        for path, one in OBJECTS.items():
            client.create(path, one)
        status = {"addresses": [{"type": "InternalIP", "address": ADDRESS}]}
        client.patch("/api/v1/nodes/node1/status", {"status": status})
        configure(made, api)
        made.start()
        yield made


def root_of(made: Machine) -> None:
    """A box, and over it of our image what is ebpf-lb's, with Debian's libbpf1."""
    machines.unpack(made)
    with tarfile.open(IMAGE) as archive:
        blobs = {one.name: one for one in archive}

        def read(name: str) -> Any:
            file = archive.extractfile(blobs[name])
            assert file is not None
            return file

        def described(descriptor: dict[str, Any]) -> str:
            return f"blobs/{descriptor['digest'].replace(':', '/')}"

        [manifest] = json.load(read("index.json"))["manifests"]
        [layer] = json.load(read(described(manifest)))["layers"]
        with tarfile.open(fileobj=read(described(layer)), mode="r:gz") as content:
            content.extractall(made.root, members=(one for one in content if is_ours(one.name)))


def is_ours(name: str) -> bool:
    library = name.rpartition("/")[2]
    return (
        name.startswith("opt/ebpf-lb")
        or name == "usr/bin/ebpf-lb"
        or (name.startswith("usr/lib/") and library.startswith(("libbpf.so", "libelf")))
    )


def configure(made: Machine, api: Path) -> None:
    user = {"token": (api / "token").read_text().strip()}
    cluster = {
        "server": f"https://{GATEWAY}:{PORT}",
        "certificate-authority": "/etc/ebpf-lb/ca.crt",
    }
    kubeconfig = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "a", "cluster": cluster}],
        "users": [{"name": "a", "user": user}],
        "contexts": [{"name": "a", "context": {"cluster": "a", "user": "a"}}],
        "current-context": "a",
    }
    config = {
        "kubeconfig": "/etc/ebpf-lb/kubeconfig",
        "nodeName": "node1",
        "clusterCidrs": ["10.244.0.0/16"],
    }
    for path, text in {
        "etc/ebpf-lb/ca.crt": (api / "ca.crt").read_text(),
        "etc/ebpf-lb/kubeconfig": json.dumps(kubeconfig),
        "etc/ebpf-lb/config.yaml": json.dumps(config),
        "etc/sysctl.d/kubernetes.conf": "net.ipv4.ip_forward=1\nnet.ipv6.conf.all.forwarding=1\n",
        "etc/systemd/system/ebpf-lb.service": UNIT.read_text(),
    }.items():
        file = made.root / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)


def shown(node: Machine, name: str) -> str:
    return node.run("systemctl", "show", "-P", name, "ebpf-lb").strip()


def log(node: Machine) -> str:
    return node.run("journalctl", "-u", "ebpf-lb", "--no-pager", "-n", "60", check=False)


def get(node: Machine, url: str) -> str:
    code = f"import urllib.request as u; print(u.urlopen({url!r}, timeout=5).read().decode())"
    # a unit, and so a process of this machine's cgroups
    return node.run(
        "systemd-run", "--quiet", "--pipe", "--wait", "python3", "-c", code, check=False
    )


def served(node: Machine) -> bool:
    """Of its own, by the socket hooks; from outside, by the programs at its interface."""
    outside = subprocess.run(
        ["nsenter", f"--net=/run/netns/{OUTSIDE}", "curl", "-sgm5", f"http://{ADDRESS}:{NODE_PORT}/"],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    return get(node, f"http://{CLUSTER_IP}/").strip() == "well" and outside.stdout == "well"


def is_well(node: Machine) -> bool:
    return "This node is well." in node.run("ebpf-lb", "status", check=False) and served(node)


def test_it_is_started_as_its_page_says(node: Machine) -> None:
    assert not served(node)
    node.run("ebpf-lb", "doctor", "--config", "/etc/ebpf-lb/config.yaml")
    node.run("systemctl", "enable", "--now", "ebpf-lb")
    try:
        until(lambda: is_well(node), "it serves")
    except AssertionError:
        raise AssertionError(log(node)) from None
    assert shown(node, "ActiveState") == "active"


def test_it_has_the_rights_of_the_unit_and_no_others(node: Machine) -> None:
    status = node.run("cat", f"/proc/{shown(node, 'MainPID')}/status")
    facts = dict(line.split(":\t", 1) for line in status.splitlines() if ":\t" in line)
    assert int(facts["CapEff"], 16) == 1 << 12 | 1 << 38 | 1 << 39  # NET_ADMIN, PERFMON, BPF
    assert (facts["NoNewPrivs"], facts["Seccomp"]) == ("1", "2")
    assert "not permitted" not in log(node)


def test_it_is_started_again_and_served_meanwhile(node: Machine) -> None:
    before = shown(node, "MainPID")
    node.run("kill", "-9", before)
    assert served(node)
    until(lambda: shown(node, "MainPID") not in ("0", before), "another one")
    until(lambda: is_well(node), "it serves again")
    assert shown(node, "NRestarts") == "1"


def test_it_comes_back_with_the_machine(node: Machine) -> None:
    node.reboot()
    until(lambda: is_well(node), "it serves after a reboot")


def test_what_it_has_loaded_stays_when_it_stops(node: Machine) -> None:
    node.run("systemctl", "stop", "ebpf-lb")
    assert (shown(node, "ActiveState"), shown(node, "Result")) == ("inactive", "success")
    assert served(node)
    assert "Removed" in node.run("ebpf-lb", "cleanup")
    assert not served(node)

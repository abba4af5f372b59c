"""Names: pods ask cluster DNS by its Service, through the data path, with the system's resolver."""

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from ebpf_lb.lab.cluster import Lab
from ebpf_lb.lab.names import client_interfaces
from tests.lab.test_outside import until

Json = dict[str, Any]

MANIFESTS = """
{apiVersion: v1, kind: Namespace, metadata: {name: names}}
---
apiVersion: apps/v1
kind: StatefulSet
metadata: {name: web, namespace: names}
spec:
  serviceName: nginx
  replicas: 2
  selector: {matchLabels: {app: nginx}}
  template:
    metadata: {labels: {app: nginx}}
    spec: {containers: [{name: c, image: i, ports: [{name: http, containerPort: 80}]}]}
---
apiVersion: v1
kind: Service
metadata: {name: nginx, namespace: names}
spec:
  clusterIP: None
  ipFamilyPolicy: PreferDualStack
  selector: {app: nginx}
  ports: [{name: http, port: 80}]
---
apiVersion: v1
kind: Service
metadata: {name: front, namespace: names}
spec:
  ipFamilyPolicy: PreferDualStack
  selector: {app: nginx}
  ports: [{name: http, port: 80}]
---
apiVersion: v1
kind: Service
metadata: {name: alias, namespace: names}
spec: {type: ExternalName, externalName: front.names.svc.cluster.local}
---
apiVersion: v1
kind: Pod
metadata: {name: asker, namespace: names}
spec: {containers: [{name: c, image: i}]}
"""


@pytest.fixture(scope="module")
def names(lab: Lab, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    path = tmp_path_factory.mktemp("dns") / "m.yaml"
    path.write_text(MANIFESTS)
    lab.apply([path])

    def ready() -> bool:
        pods = lab.client.get("/api/v1/namespaces/names/pods")["items"]
        dns = lab.client.get("/api/v1/namespaces/kube-system/pods")["items"]
        return len(pods) == 3 and len(dns) == 2 and all(map(is_ready, [*pods, *dns]))

    until(ready, "the pods do not get ready")
    yield lab
    lab.client.delete("/api/v1/namespaces/names")


def is_ready(pod: Json) -> bool:
    conditions = pod.get("status", {}).get("conditions") or ()
    return any(c["type"] == "Ready" and c["status"] == "True" for c in conditions)


def resolve(lab: Lab, name: str) -> set[str]:
    """By the C library, as every program in the pod does."""
    done = lab.exec("names/asker", ["getent", "ahosts", name])
    return {line.split()[0] for line in done.stdout.splitlines()}


def pod_addresses(lab: Lab, *names: str) -> set[str]:
    found = set()
    for name in names:
        pod = lab.client.get(f"/api/v1/namespaces/names/pods/{name}")
        found |= {entry["ip"] for entry in pod["status"]["podIPs"]}
    return found


def test_a_service_by_each_of_its_names(names: Lab) -> None:
    service = names.client.get("/api/v1/namespaces/names/services/front")
    expected = set(service["spec"]["clusterIPs"])
    for name in (
        "front",
        "front.names",
        "front.names.svc",
        "front.names.svc.cluster.local",
        "alias",
    ):
        until(lambda name=name: resolve(names, name) == expected, f"{name} is not resolved")


def test_a_service_is_reached_by_its_name(names: Lab) -> None:
    def answers() -> set[str]:
        words = ["curl", "-s", "--max-time", "5", *["http://front.names/"] * 8, "-w", "\\n"]
        return set(names.exec("names/asker", words).stdout.split())

    until(lambda: {"web-0", "web-1"} >= answers() > set(), "nobody answers")


def test_headless_and_stateful_names(names: Lab) -> None:
    both = pod_addresses(names, "web-0", "web-1")
    until(lambda: resolve(names, "nginx.names") == both, "not both pods")
    assert resolve(names, "web-1.nginx") == pod_addresses(names, "web-1")
    assert resolve(names, "web-2.nginx") == set()


def test_dashed_names_and_reverse(names: Lab) -> None:
    [address, _] = sorted(pod_addresses(names, "asker"))
    dashed = address.replace(".", "-")
    assert resolve(names, f"{dashed}.names.pod") == {address}
    service = names.client.get("/api/v1/namespaces/names/services/front")
    done = names.exec("names/asker", ["getent", "hosts", service["spec"]["clusterIP"]])
    assert done.stdout.split()[1:] == ["front.names.svc.cluster.local"]


def test_by_both_families_and_protocols(names: Lab) -> None:
    """A question with the kernel's sockets to each of the Service's addresses."""
    script = Path(__file__).parent / "ask_dns.py"
    for server in ("10.96.0.10", "fd00:10:96::a"):
        for protocol in ("udp", "tcp"):
            words = [sys.executable, str(script), server, protocol, "front.names.svc.cluster.local"]
            done = names.exec("names/asker", words)
            assert done.returncode == 0, done.stderr
            answers = json.loads(done.stdout)
            service = names.client.get("/api/v1/namespaces/names/services/front")
            assert answers == [service["spec"]["clusterIPs"][0]]


def test_the_environment_of_a_pod_started_after_the_service(names: Lab) -> None:
    words = ["sh", "-c", "echo $FRONT_SERVICE_HOST $FRONT_PORT_80_TCP $HOSTNAME"]
    names.client.delete("/api/v1/namespaces/names/pods/web-0", grace_period_s=0)

    def seen() -> list[str]:
        try:
            return names.exec("names/web-0", words).stdout.split()
        except Exception:
            return []

    service = names.client.get("/api/v1/namespaces/names/services/front")
    host = service["spec"]["clusterIP"]
    until(lambda: seen() == [host, f"tcp://{host}:80", "web-0"], "not in the environment")


def test_the_machines_own_files_stay(names: Lab) -> None:
    own = Path("/etc/hosts").read_text()
    assert names.exec("names/asker", ["cat", "/etc/hosts"]).stdout != own
    assert names.exec("node1", ["cat", "/etc/hosts"]).stdout == own
    assert Path("/etc/hosts").read_text() == own


RESOLVER = """
apiVersion: v1
kind: Pod
metadata: {{name: resolver, namespace: names}}
spec:
  containers:
    - name: c
      image: coredns
      args: ["--upstream={address}"]
      ports: [{{containerPort: 53, protocol: UDP}}, {{containerPort: 53, protocol: TCP}}]
"""


@contextmanager
def name_server_outside(lab: Lab) -> Iterator[str]:
    """On the machine outside, meanwhile; its address there."""
    script = str(Path(__file__).with_name("outside_dns.py"))
    with lab.popen("client", [sys.executable, script], stdout=subprocess.PIPE) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n"
            yield str(client_interfaces(1, lab.options.families)[0].ip)
        finally:
            process.kill()


def test_other_names_are_asked_outside(names: Lab, tmp_path: Path) -> None:
    """From a pod, by cluster DNS of its own, which asks a name server beyond the router."""
    with name_server_outside(names) as address:
        path = tmp_path / "resolver.yaml"
        path.write_text(RESOLVER.format(address=address))
        names.apply([path])

        def resolver() -> str:
            pod = names.client.get("/api/v1/namespaces/names/pods/resolver")
            return str(pod["status"]["podIP"]) if is_ready(pod) else ""

        until(resolver, "the name server does not get ready")
        script = str(Path(__file__).with_name("ask_dns.py"))
        for name, expected in (
            ("www.example.org", ["203.0.113.7"]),
            ("front.names.svc.cluster.local", [service_address(names, "front")]),
        ):
            for protocol in ("udp", "tcp"):
                words = [sys.executable, script, resolver(), protocol, name]
                done = names.exec("names/asker", words)
                assert done.returncode == 0, done.stderr
                assert json.loads(done.stdout) == expected
    names.client.delete("/api/v1/namespaces/names/pods/resolver", grace_period_s=0)


def service_address(lab: Lab, name: str) -> str:
    service = lab.client.get(f"/api/v1/namespaces/names/services/{name}")
    return str(service["spec"]["clusterIP"])

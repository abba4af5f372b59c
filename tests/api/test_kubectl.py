"""kubectl itself against the lab's API server: what README says that it can do there."""

import json
import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.api.lab_server import PATIENCE_S, LabServer
from tests.capabilities import needs
from tests.support.tools import FOLDER, TOOLS

pytestmark = needs(TOOLS)

HOSTNAMES = Path(__file__).parents[2] / "manifests/examples/hostnames.yaml"
Kubectl = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LabServer]:
    made = LabServer(tmp_path_factory.mktemp("api"))
    made.local.create("/api/v1/nodes", {"metadata": {"name": "node1"}})
    yield made
    made.close()


@pytest.fixture
def kubectl(server: LabServer, tmp_path: Path) -> Kubectl:
    environment = os.environ | {"KUBECONFIG": str(server.kubeconfig), "HOME": str(tmp_path)}

    def run(*words: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [FOLDER / "kubectl", *words],
            env=environment,
            capture_output=True,
            text=True,
            check=check,
            timeout=PATIENCE_S,
        )

    return run


def test_apply_get_scale_describe_delete(kubectl: Kubectl) -> None:
    apply = ("apply", "-f", str(HOSTNAMES))
    made = ["deployment.apps/hostnames", "service/hostnames"]
    assert kubectl(*apply).stdout.splitlines() == [f"{name} created" for name in made]
    assert kubectl(*apply).stdout.splitlines() == [f"{name} unchanged" for name in made]
    rows = [line.split() for line in kubectl("get", "deployments").stdout.splitlines()]
    assert rows[0] == ["NAME", "READY", "UP-TO-DATE", "AVAILABLE", "AGE"]
    assert rows[1][:2] == ["hostnames", "0/3"]
    header = kubectl("get", "svc", "-o", "wide").stdout.splitlines()[0]
    assert header.split() == ["NAME", "TYPE", "CLUSTER-IP", "EXTERNAL-IP", "PORT(S)", "AGE",
                              "SELECTOR"]  # fmt: skip
    assert kubectl("scale", "deployment/hostnames", "--replicas", "5").stdout.endswith("scaled\n")
    spec = json.loads(kubectl("get", "deploy/hostnames", "-o", "json").stdout)["spec"]
    assert spec["replicas"] == 5
    for kind in ("deployment", "service", "pods", "endpoints", "endpointslices", "node", "ns"):
        described = kubectl("describe", kind)
        assert described.stdout.startswith("Name:") and not described.stderr, kind
    assert "deleted" in kubectl("delete", "-f", str(HOSTNAMES)).stdout


def test_a_misspelt_field(kubectl: Kubectl, tmp_path: Path) -> None:
    typed = tmp_path / "typed.yaml"
    typed.write_text(HOSTNAMES.read_text().replace("targetPort", "targetport"))
    for words in (("apply",), ("create",), ("apply", "--dry-run=server")):
        done = kubectl(*words, "-f", str(typed), check=False)
        assert done.returncode == 1
        assert 'unknown field "spec.ports[0].targetport" (did you mean "targetPort"?)' in (
            done.stderr
        )
    warned = kubectl("apply", "--validate=warn", "--dry-run=server", "-f", str(typed))
    assert 'Warning: unknown field "spec.ports[0].targetport"' in warned.stderr
    kubectl("delete", "deployment", "hostnames", "--ignore-not-found")


def test_a_changed_manifest_merges(kubectl: Kubectl, server: LabServer, tmp_path: Path) -> None:
    def manifest(*ports: dict[str, Any]) -> str:
        path = tmp_path / "svc.json"
        head = {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "merged"}}
        path.write_text(json.dumps(head | {"spec": {"type": "NodePort", "ports": ports}}))
        return str(path)

    dns = {"name": "dns", "port": 53, "protocol": "UDP"}
    web = {"name": "web", "port": 80}
    kubectl("apply", "-f", manifest(web, dns))
    path = "/api/v1/namespaces/default/services/merged"
    before = {port["name"]: port for port in server.local.get(path)["spec"]["ports"]}
    kubectl("apply", "-f", manifest(dns, {"name": "tls", "port": 443}))
    after = {port["name"]: port for port in server.local.get(path)["spec"]["ports"]}
    assert after.keys() == {"dns", "tls"}
    assert after["dns"] == before["dns"], "with its nodePort"
    kubectl("label", "service", "merged", "a=b")
    kubectl("patch", "service", "merged", "-p", '{"spec":{"sessionAffinity":"ClientIP"}}')
    live = server.local.get(path)
    assert (live["metadata"]["labels"], live["spec"]["sessionAffinity"]) == ({"a": "b"}, "ClientIP")
    kubectl("delete", "service", "merged")


def test_watching(kubectl: Kubectl, server: LabServer) -> None:
    kubectl("apply", "-f", str(HOSTNAMES))
    words = [FOLDER / "kubectl", "get", "deployment", "hostnames", "-w", "--no-headers"]
    environment = os.environ | {"KUBECONFIG": str(server.kubeconfig)}
    with subprocess.Popen(words, env=environment, stdout=subprocess.PIPE, text=True) as watching:
        assert watching.stdout is not None
        try:
            assert watching.stdout.readline().split()[:2] == ["hostnames", "0/3"]
            kubectl("scale", "deployment/hostnames", "--replicas", "4")
            assert any(line.split()[1] == "0/4" for line in watching.stdout)
        finally:
            watching.kill()
    kubectl("delete", "-f", str(HOSTNAMES))


def test_selections(kubectl: Kubectl) -> None:
    kubectl("apply", "-f", str(HOSTNAMES))
    kubectl("label", "service", "hostnames", "tier=front")
    kubectl("annotate", "service", "hostnames", "ebpf-lb.io/algorithm=rr")

    def names(*words: str) -> list[str]:
        return kubectl("get", "services", "-A", "-o", "name", *words).stdout.split()

    assert names() == ["service/hostnames", "service/kubernetes"]
    assert names("-l", "tier=front") == ["service/hostnames"]
    assert names("--field-selector", "metadata.name=kubernetes") == ["service/kubernetes"]
    path = "jsonpath={.metadata.annotations.ebpf-lb\\.io/algorithm} {.spec.ports[0].targetPort}"
    assert kubectl("get", "svc", "hostnames", "-o", path).stdout == "rr 9376"
    assert "kind: Service" in kubectl("get", "svc", "hostnames", "-o", "yaml").stdout
    assert "service/hostnames" in kubectl("get", "all", "-A").stdout
    kubectl("delete", "-f", str(HOSTNAMES))


def test_diff_and_dry_runs(kubectl: Kubectl, tmp_path: Path) -> None:
    kubectl("apply", "--dry-run=server", "-f", str(HOSTNAMES))
    assert kubectl("get", "svc", "hostnames", check=False).returncode == 1, "it was only asked"
    kubectl("apply", "-f", str(HOSTNAMES))
    assert kubectl("diff", "-f", str(HOSTNAMES)).stdout == ""
    other = tmp_path / "other.yaml"
    other.write_text(HOSTNAMES.read_text().replace("port: 80", "port: 8080"))
    differs = kubectl("diff", "-f", str(other), check=False)
    assert differs.returncode == 1 and "+  - port: 8080" in differs.stdout
    kubectl("delete", "-f", str(HOSTNAMES))


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("apply", "--server-side", "-f", str(HOSTNAMES)), "Server-side apply not available"),
        (("create", "namespace", "made"), "this server speaks JSON alone: write a manifest"),
        (("get", "jobs"), "the server doesn't have a resource type"),
    ],
    ids=lambda value: value[0] if isinstance(value, tuple) else "",
)
def test_what_is_not_supported_says_so(kubectl: Kubectl, words: tuple[str, ...], says: str) -> None:
    done = kubectl(*words, check=False)
    assert done.returncode == 1 and says in done.stderr


def test_kinds_and_fields(kubectl: Kubectl) -> None:
    assert "targetPort" in kubectl("explain", "service.spec.ports").stdout
    kinds = {line.split()[0] for line in kubectl("api-resources").stdout.splitlines()[1:]}
    assert {"services", "endpointslices", "deployments", "ingresses", "servicecidrs"} <= kinds

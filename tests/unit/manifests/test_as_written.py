"""The DaemonSet: what an operator gets by `kubectl apply`."""

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from docs.extensions import declared_metrics
from ebpf_lb.agent.config import load
from ebpf_lb.agent.config.keys import Config

PROJECT = Path(__file__).parents[3]
FILE = PROJECT / "manifests/base/ebpf-lb.yaml"


@pytest.fixture(scope="module")
def objects() -> dict[str, Any]:
    return {one["kind"]: one for one in yaml.safe_load_all(FILE.read_text())}


@pytest.fixture(scope="module")
def pod(objects: dict[str, Any]) -> Any:
    return objects["DaemonSet"]["spec"]["template"]["spec"]


@pytest.fixture(scope="module")
def container(pod: Any) -> Any:
    (only,) = pod["containers"]
    return only


def test_the_configuration_is_one(objects: dict[str, Any], tmp_path: Path) -> None:
    file = tmp_path / "config.yaml"
    file.write_text(objects["ConfigMap"]["data"]["config.yaml"])
    found = load({}, {}, file)
    assert found.warnings == [] and len(found.config.cluster_cidrs) == 2


def test_probes_ask_what_the_agent_serves_and_kube_proxy_does_not(container: Any) -> None:
    address = Config().healthz_bind_address
    assert address is not None
    pages = {}
    for probe in ("startupProbe", "livenessProbe", "readinessProbe"):
        asked = container[probe]["httpGet"]
        assert asked["port"] == address[1]
        pages[probe] = asked["path"]
    assert pages["startupProbe"] == pages["livenessProbe"] == "/livez"
    assert pages["readinessProbe"] == "/readyz"
    assert "initialDelaySeconds" not in container["livenessProbe"]


def test_it_runs_on_every_linux_node_before_others(pod: Any) -> None:
    assert pod["nodeSelector"] == {"kubernetes.io/os": "linux"}
    assert pod["priorityClassName"] == "system-node-critical" and pod["hostNetwork"]
    assert pod["tolerations"] == [{"operator": "Exists"}]


def test_what_it_writes_is_on_the_host_or_goes_with_it(pod: Any, container: Any) -> None:
    assert container["securityContext"]["readOnlyRootFilesystem"]
    mounts = {one["name"]: one for one in container["volumeMounts"]}
    assert mounts["bpffs"]["mountPropagation"] == "HostToContainer"
    assert {one["name"] for one in pod["volumes"]} == mounts.keys()
    assert container["resources"]["requests"]["memory"] == "320Mi"


def test_only_what_begins_is_privileged(pod: Any, container: Any) -> None:
    """tests/lab/test_capabilities.py runs an agent with these rights."""
    (init,) = pod["initContainers"]
    assert init["command"][:3] == ["ebpf-lb", "agent", "--init-only"]
    assert init["image"] == container["image"] and init["securityContext"]["privileged"]
    (bpffs,) = (one for one in init["volumeMounts"] if one["name"] == "bpffs")
    assert bpffs["mountPropagation"] == "Bidirectional"
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"], "add": ["BPF", "NET_ADMIN", "PERFMON"]},
    }
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}


def test_names_in_it_lead_to_each_other(objects: dict[str, Any], pod: Any, container: Any) -> None:
    names = {one["metadata"]["name"] for one in objects.values()}
    assert names == {"ebpf-lb"} and pod["serviceAccountName"] == "ebpf-lb"
    data = objects["ConfigMap"]["data"]
    keys = [
        one["valueFrom"]["configMapKeyRef"]["key"]
        for one in container["env"]
        if "configMapKeyRef" in one["valueFrom"]
    ]
    assert set(keys) == {"apiServerHost", "apiServerPort"} <= data.keys()
    (account,) = objects["ClusterRoleBinding"]["subjects"]
    assert account["name"] == "ebpf-lb" and account["namespace"] == "kube-system"


def test_alerts_ask_for_metrics_and_labels_that_there_are(container: Any) -> None:
    monitor, rule = yaml.safe_load_all(
        (PROJECT / "manifests/overlays/monitoring/monitoring.yaml").read_text()
    )
    (endpoint,) = monitor["spec"]["podMetricsEndpoints"]
    ports = {one["name"]: one["containerPort"] for one in container["ports"]}
    metrics_address = Config().metrics_bind_address
    assert metrics_address is not None and ports[endpoint["port"]] == metrics_address[1]
    declared = {
        metric.name: set(metric.labels)
        for metric in declared_metrics.read(sorted((PROJECT / "ebpf_lb/agent").rglob("*.py")))
    }
    alerts = [one for group in rule["spec"]["groups"] for one in group["rules"]]
    assert len(alerts) > 5
    for alert in alerts:
        named = set(re.findall(r"\b(?:ebpf_lb|kubeproxy)_\w+", alert["expr"]))
        assert named and named <= declared.keys(), alert
        said = " ".join(alert["annotations"].values())
        used = set(re.findall(r"\$labels\.(\w+)", said)) - {"node"}  # which scraping adds
        assert all(used <= declared[name] for name in named), alert


@pytest.mark.parametrize("overlay", ["beside-kube-proxy", "host-routing", "monitoring", "xdp"])
def test_an_overlay_changes_what_there_is(overlay: str, objects: dict[str, Any]) -> None:
    folder = PROJECT / "manifests/overlays" / overlay
    content = yaml.safe_load((folder / "kustomization.yaml").read_text())
    for name in content["resources"]:
        assert (folder / name).exists()
    assert yaml.safe_load((PROJECT / "manifests/base/kustomization.yaml").read_text())[
        "resources"
    ] == [FILE.name]
    (patch,) = content["patches"]
    changed = yaml.safe_load(patch["patch"])
    there = objects[changed["kind"]]
    assert (changed["apiVersion"], changed["metadata"]["name"]) == (
        there["apiVersion"],
        there["metadata"]["name"],
    )
    assert changed["metadata"]["namespace"] == there["metadata"]["namespace"]
    pod, changes = (one["spec"]["template"]["spec"] for one in (there, changed))
    for container in changes.get("containers", ()):
        assert container["name"] in {one["name"] for one in pod["containers"]}
        variables = {one["name"]: one["value"] for one in container["env"]}
        load({}, variables, None)  # what cannot be is refused
        assert all(name.startswith("EBPF_LB_") for name in variables)

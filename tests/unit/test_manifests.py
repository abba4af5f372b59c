"""The DaemonSet: what an operator gets by `kubectl apply`."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from ebpf_lb.agent.config import load
from ebpf_lb.agent.config.keys import Config

FILE = Path(__file__).parents[2] / "manifests/ebpf-lb.yaml"


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
    assert mounts["bpffs"]["mountPropagation"] == "Bidirectional"
    assert {one["name"] for one in pod["volumes"]} == mounts.keys()
    assert container["resources"]["requests"]["memory"] == "320Mi"


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

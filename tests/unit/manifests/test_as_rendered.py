"""kustomize and Helm make the same objects, and Kubernetes' own schemas take them."""

from typing import Any

import kubernetes_validate
import pytest
import yaml

from ebpf_lb.agent.config import load
from ebpf_lb.cli.cleanup import cleanup
from tests.capabilities import needs
from tests.support.tools import PROJECT, TOOLS, tool
from tests.unit.manifests.rendered import ALONE, SAME, by_helm, by_kustomize, named

pytestmark = needs(TOOLS)

VERSIONS = ("1.37", "1.29")  # of Kubernetes: the newest, and one that is old
THE_OPERATORS = "monitoring.coreos.com/"  # kinds that are not Kubernetes' own


def validated(objects: tuple[dict[str, Any], ...], version: str) -> int:
    """How many there were; strict: a field that does not exist is a mistake."""
    own = [one for one in objects if not one["apiVersion"].startswith(THE_OPERATORS)]
    for one in own:
        kubernetes_validate.validate(one, version, strict=True)
    return len(own)


@pytest.mark.parametrize("folder", SAME)
def test_helm_and_kustomize_make_the_same(folder: str) -> None:
    by_one, by_other = named(by_kustomize(folder)), named(by_helm(*SAME[folder]))
    assert by_one.keys() == by_other.keys()
    for key, one in by_one.items():
        other = by_other[key]
        if key[0] == "ConfigMap" and "config.yaml" in one["data"]:
            for made in (one, other):  # a text in which comments and quotes are somebody's taste
                made["data"]["config.yaml"] = str(yaml.safe_load(made["data"]["config.yaml"]))
        for made in (one, other):
            _by_name(made)
        assert one == other, key


def _by_name(made: dict[str, Any]) -> None:
    """Of variables, the order means nothing here."""
    if made["kind"] == "DaemonSet":
        (agent,) = made["spec"]["template"]["spec"]["containers"]
        agent["env"].sort(key=lambda one: one["name"])


def test_every_overlay_is_compared() -> None:
    folders = (PROJECT / "manifests").glob("**/kustomization.yaml")
    found = {str(one.parent.relative_to(PROJECT / "manifests")) for one in folders}
    assert found - {ALONE} == SAME.keys()


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("folder", SAME)
def test_kubernetes_schemas_take_them(folder: str, version: str) -> None:
    assert validated(by_kustomize(folder), version) >= 4
    assert validated(by_helm(*SAME[folder]), version) >= 4


@pytest.mark.parametrize("version", VERSIONS)
def test_kubernetes_schemas_take_what_cleans_up(version: str) -> None:
    """It runs the command as it is, from the agent's image, where the agent is gone."""
    (daemon_set,) = by_kustomize(ALONE)
    assert validated((daemon_set,), version) == 1
    pod, agents = (
        one["spec"]["template"]["spec"]
        for one in (daemon_set, named(by_kustomize("base"))["DaemonSet", "ebpf-lb"])
    )
    (init,) = pod["initContainers"]
    assert {one["image"] for one in (init, *pod["containers"], *agents["containers"])} == {
        init["image"]
    }
    program, verb, *options = init["command"]
    assert (program, verb) == ("ebpf-lb", "cleanup")
    (waits,) = pod["containers"]
    assert waits["command"][0] == "python3", "the image has no sleep, nor a shell"
    compile(waits["command"][-1], "command", "exec")
    cleanup.make_context("cleanup", ["--drain=3600", "--cgroup=/sys/fs/cgroup"])
    assert {one.partition("=")[0] for one in options} == {"--drain", "--cgroup"}
    places = {one["name"]: one["hostPath"] for one in pod["volumes"]}
    agents_places = {one["name"]: one.get("hostPath") for one in agents["volumes"]}
    assert places == {name: agents_places[name] for name in ("bpffs", "cgroup")}
    ((term,),) = (
        one["matchExpressions"]
        for one in pod["affinity"]["nodeAffinity"][
            "requiredDuringSchedulingIgnoredDuringExecution"
        ]["nodeSelectorTerms"]
    )
    beside = named(by_kustomize("overlays/beside-kube-proxy"))["DaemonSet", "ebpf-lb"]
    assert term["operator"] == "DoesNotExist"
    assert term["key"] in beside["spec"]["template"]["spec"]["nodeSelector"]


def test_a_misspelt_field_is_noticed() -> None:
    (daemon_set,) = (one for one in by_kustomize("base") if one["kind"] == "DaemonSet")
    wrong = daemon_set | {"spec": daemon_set["spec"] | {"updateStrategie": {}}}
    with pytest.raises(kubernetes_validate.ValidationError, match="updateStrategie"):
        validated((wrong,), VERSIONS[0])


def test_helm_takes_any_namespace_and_every_value() -> None:
    values = (
        "image.repository=registry.example/ebpf-lb",
        "image.tag=1.2.3",
        "apiServer.host=2001:db8::1",
        "config.conntrackMin=0",
        "besideKubeProxy=true",
        "hostRouting=bpf",
        "xdp=off",
        "monitoring.enabled=true",
        "cgroup=/sys/fs/cgroup/unified",
        "resources.limits.memory=1Gi",
        "priorityClassName=other",
    )
    objects = by_helm(*values, release="net")
    assert validated(objects, VERSIONS[0]) >= 4
    found = named(objects)
    spaces = {one["metadata"].get("namespace") for one in objects}
    assert spaces == {"net", None}  # ClusterRoleBindings have none
    (subject,) = found["ClusterRoleBinding", "ebpf-lb"]["subjects"]
    assert subject["namespace"] == "net"
    pod = found["DaemonSet", "ebpf-lb"]["spec"]["template"]["spec"]
    images = {one["image"] for one in pod["containers"] + pod["initContainers"]}
    assert images == {"registry.example/ebpf-lb:1.2.3"}
    assert pod["nodeSelector"] == {"kubernetes.io/os": "linux", "ebpf-lb.io/serves": "true"}
    (agent,) = pod["containers"]
    assert agent["resources"]["limits"] == {"memory": "1Gi"}
    variables = {one["name"]: one["value"] for one in agent["env"] if "value" in one}
    assert load({}, variables, None).config.xdp == "off"
    data = found["ConfigMap", "ebpf-lb"]["data"]
    assert data["apiServerHost"] == "2001:db8::1" and "conntrackMin: 0" in data["config.yaml"]


@pytest.mark.parametrize(
    ("value", "complaint"),
    [
        ("xdp=fast", "xdp"),
        ("apiServer.port=70000", "port"),
        ("besideKubeproxy=true", "besideKubep"),
    ],
)
def test_helm_refuses_what_cannot_be(value: str, complaint: str) -> None:
    with pytest.raises(AssertionError, match=complaint):
        by_helm(value)


def test_helm_has_nothing_to_complain_of() -> None:
    assert "0 chart(s) failed" in tool("helm", "lint", "--strict", PROJECT / "manifests/chart")
    version = tool("helm", "show", "chart", PROJECT / "manifests/chart")
    project = (PROJECT / "pyproject.toml").read_text()
    for key in ("version", "appVersion"):
        said = yaml.safe_load(version)[key]
        assert f'\nversion = "{said}"\n' in project

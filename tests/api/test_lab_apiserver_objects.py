"""apply, delete, get, scale and pod, as people use them, against the server."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner, Result

from ebpf_lb.cli.lab.objects import COMMANDS
from ebpf_lb.errors import UserError
from ebpf_lb.lab.cluster import Lab
from ebpf_lb.lab.objects.apply import apply_files, delete_files
from ebpf_lb.lab.objects.client import ApiError, Client
from ebpf_lb.lab.objects.manifest import ManifestError
from tests.api.lab_server import LabServer

Json = dict[str, Any]
SERVICES = "/api/v1/namespaces/default/services"
PODS = "/api/v1/namespaces/default/pods"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LabServer]:
    made = LabServer(tmp_path_factory.mktemp("api"))
    yield made
    made.close()


@pytest.fixture
def client(server: LabServer) -> Client:
    return server.local


def service(name: str, **spec: Any) -> Json:
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": name},
        "spec": {"ports": [{"port": 80}]} | spec,
    }


def manifest(folder: Path, *objects: Json) -> list[str]:
    path = folder / "m.yaml"
    path.write_text(yaml.safe_dump_all(objects))
    return [str(path)]


def apply(client: Client, folder: Path, *objects: Json, namespace: str = "default") -> list[str]:
    return [str(r) for r in apply_files(client, manifest(folder, *objects), namespace)]


def spec_of(client: Client, name: str) -> Json:
    spec: Json = client.get(f"{SERVICES}/{name}")["spec"]
    return spec


def test_created_unchanged_configured(client: Client, tmp_path: Path) -> None:
    assert apply(client, tmp_path, service("web")) == ["service/web created"]
    assert apply(client, tmp_path, service("web")) == ["service/web unchanged"]
    changed = service("web", sessionAffinity="ClientIP")
    assert apply(client, tmp_path, changed) == ["service/web configured"]
    assert apply(client, tmp_path, changed) == ["service/web unchanged"]


def test_what_is_no_longer_named_goes_and_the_rest_stays(client: Client, tmp_path: Path) -> None:
    two = [{"port": 80, "name": "a"}, {"port": 81, "name": "b"}]
    first = service("gone", type="NodePort", ports=two, externalIPs=["192.0.2.1"])
    first["metadata"]["labels"] = {"mine": "1", "kept": "1"}
    apply(client, tmp_path, first)
    client.patch(f"{SERVICES}/gone", {"metadata": {"labels": {"others": "2"}}})
    before = spec_of(client, "gone")
    second = service("gone", type="NodePort", ports=two[:1])
    second["metadata"]["labels"] = {"kept": "1"}
    apply(client, tmp_path, second)
    after = client.get(f"{SERVICES}/gone")
    assert "externalIPs" not in after["spec"]
    assert after["spec"]["ports"] == before["ports"][:1], "with its nodePort"
    assert after["spec"]["clusterIP"] == before["clusterIP"]
    assert after["metadata"]["labels"] == {"kept": "1", "others": "2"}


def test_namespaces(client: Client, tmp_path: Path) -> None:
    with pytest.raises(ManifestError, match='document 1: namespaces "nowhere" not found'):
        apply(client, tmp_path, service("web"), namespace="nowhere")
    home = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "green"}}
    assert apply(client, tmp_path, home, service("there"), namespace="green") == [
        "namespace/green created",
        "service/there created",
    ]
    assert client.get("/api/v1/namespaces/green/services/there")


def test_nothing_of_a_bad_document_is_applied(client: Client, tmp_path: Path) -> None:
    bad = service("bad", ports=[{"port": 70000, "targetPort": 1}])
    with pytest.raises(ManifestError) as caught:
        apply(client, tmp_path, service("good"), bad)
    assert str(caught.value) == (
        f"{tmp_path}/m.yaml, document 2: spec.ports[0].port: Invalid value: 70000: must be "
        "between 1 and 65535, inclusive"
    )
    assert spec_of(client, "good")
    several = {"apiVersion": "v1", "kind": "List", "items": [service("in-a-list"), bad]}
    with pytest.raises(ManifestError, match=r"document 1: items\[1\].spec.ports\[0\].port"):
        apply(client, tmp_path, several)
    with pytest.raises(ApiError):
        spec_of(client, "in-a-list")


def test_a_list_may_bring_its_own_namespace(client: Client, tmp_path: Path) -> None:
    home = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "own"}}
    guest = service("guest")
    guest["metadata"]["namespace"] = "own"
    both = {"apiVersion": "v1", "kind": "List", "items": [home, guest]}
    assert apply(client, tmp_path, both) == ["namespace/own created", "service/guest created"]


def test_delete(client: Client, tmp_path: Path) -> None:
    files = manifest(tmp_path, service("one"), service("two"))
    apply_files(client, files[:1])
    client.delete(f"{SERVICES}/one")
    assert [str(result) for result in delete_files(client, files)] == ["service/two deleted"]
    assert delete_files(client, files) == []


# --- the commands


@pytest.fixture
def run(client: Client, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setattr(Lab, "client", property(lambda lab: client))
    commands = {command.name: command for command in COMMANDS}

    def invoke(name: str, *arguments: str, stdin: str | None = None) -> Result:
        return CliRunner().invoke(commands[name], arguments, input=stdin)

    return invoke


def test_commands_on_services(run: Any) -> None:
    text = json.dumps(service("typed", type="NodePort"))
    assert run("apply", "-f", "-", stdin=text).output == "service/typed created\n"
    lines = run("get", "svc", "typed").output.splitlines()
    assert lines[0].split() == ["NAME", "TYPE", "CLUSTER-IP", "EXTERNAL-IP", "PORT(S)", "AGE"]
    assert lines[1].startswith("typed")
    shown = json.loads(run("get", "service/typed", "-o", "json").output)
    assert (shown["kind"], shown["metadata"]["name"]) == ("Service", "typed")
    listed = yaml.safe_load(run("get", "services", "-o", "yaml").output)
    assert listed["kind"] == "List"
    assert all(item["kind"] == "Service" for item in listed["items"])
    assert run("get", "svc,ns", "-A").output.count("NAME") >= 3
    assert run("delete", "svc", "typed").output == "service/typed deleted\n"


def test_commands_on_pods(run: Any, client: Client) -> None:
    deployment = Path(__file__).parents[2] / "manifests/examples/hostnames.yaml"
    client.create("/api/v1/nodes", {"metadata": {"name": "node1"}})
    run("apply", "-f", str(deployment))
    assert run("scale", "hostnames", "1").output == "deployment.apps/hostnames scaled\n"
    running = "--ready", "--unready", "--terminate", "--remove"
    pod = {"metadata": {"name": "alone"}}
    pod["spec"] = {"containers": [{"name": "c", "image": "i"}], "nodeName": "node1"}
    client.create(PODS, pod)
    states = []
    for step in running[:3]:
        assert run("pod", "alone", step).exit_code == 0
        live = client.get(f"{PODS}/alone")
        conditions = {c["type"]: c["status"] for c in live["status"].get("conditions", ())}
        states.append((conditions["Ready"], "deletionTimestamp" in live["metadata"]))
    assert states == [("True", False), ("False", False), ("False", True)]
    grace_s = client.get(f"{PODS}/alone")["metadata"]["deletionGracePeriodSeconds"]
    assert grace_s > 3600, "held until it is removed"
    assert run("pod", "alone", "--remove").output == "pod/alone gone\n"
    with pytest.raises(ApiError):
        client.get(f"{PODS}/alone")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("get", "colours"), "the lab has no kind 'colours'; it has namespaces, nodes, services"),
        (("get", "svc", "nothing"), 'services "nothing" not found'),
        (("scale", "nothing", "3"), "there is no Deployment or StatefulSet 'nothing'"),
        (("scale", "svc/web", "3"), "services cannot be scaled"),
        (("pod", "nothing", "--ready"), 'pods "nothing" not found'),
        (("delete", "svc"), "name the services to delete"),
    ],
)
def test_what_cannot_be_done_is_said_in_a_sentence(
    run: Any, words: tuple[str, ...], message: str
) -> None:
    result = run(*words)
    assert result.exit_code != 0
    assert isinstance(result.exception, UserError)
    assert message in str(result.exception)


def test_a_server_that_is_away(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(Lab, "client", property(lambda lab: Client(tmp_path / "nothing.sock")))
    get = next(command for command in COMMANDS if command.name == "get")
    result = CliRunner().invoke(get, ["svc"])
    assert "the API server of lab 'lab' does not answer" in str(result.exception)

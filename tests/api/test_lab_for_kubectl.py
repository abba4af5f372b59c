"""What kubectl needs of the lab's API server: Tables, OpenAPI, and a say about unknown fields."""

import http.client
import json
import socket
from collections.abc import Iterator
from typing import Any

import pytest

from ebpf_lb.apiserver.kinds import KINDS, Kind
from ebpf_lb.lab.objects.client import ApiError
from tests.api.lab_server import LabServer

Json = dict[str, Any]
SERVICES = "/api/v1/namespaces/default/services"
AS_TABLE = "application/json;as=Table;v=v1;g=meta.k8s.io,application/json"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LabServer]:
    made = LabServer(tmp_path_factory.mktemp("api"))
    yield made
    made.close()


def request(
    server: LabServer, method: str, path: str, body: Json | None = None, **headers: str
) -> tuple[http.client.HTTPResponse, Any]:
    connection = http.client.HTTPConnection("localhost")
    connection.sock = socket.socket(socket.AF_UNIX)
    connection.sock.connect(str(server.socket))
    content = json.dumps(body) if body is not None else None
    if content:
        headers.setdefault("Content-Type", "application/json")
    connection.request(method, path, content, headers)
    response = connection.getresponse()
    answer = json.loads(response.read())
    connection.close()
    return response, answer


def typed(name: str) -> Json:
    """A Service with a misspelt field."""
    return {"metadata": {"name": name}, "spec": {"ports": [{"port": 80, "targetport": 8080}]}}


UNKNOWN = 'unknown field "spec.ports[0].targetport" (did you mean "targetPort"?)'


def test_a_strict_creation_is_refused(server: LabServer) -> None:
    with pytest.raises(ApiError) as caught:
        server.local.create(SERVICES, typed("strict"), fieldValidation="Strict")
    assert caught.value.status == 400
    assert str(caught.value).endswith(f"strict decoding error: {UNKNOWN}")
    assert caught.value.causes[0]["field"] == "spec.ports[0].targetport"
    with pytest.raises(ApiError):
        server.local.get(f"{SERVICES}/strict")


@pytest.mark.parametrize(("wish", "warned"), [("", 1), ("?fieldValidation=Warn", 1),
                                              ("?fieldValidation=Ignore", 0)])  # fmt: skip
def test_others_are_warned(server: LabServer, wish: str, warned: int) -> None:
    name = f"warned-{len(wish)}"
    response, answer = request(server, "POST", f"{SERVICES}{wish}", typed(name))
    assert response.status == 201
    quoted = UNKNOWN.replace('"', '\\"')
    assert (response.headers.get_all("Warning") or []) == [f'299 - "{quoted}"'] * warned
    assert answer["spec"]["ports"][0]["targetPort"] == 80, "the misspelt field is not kept"
    assert "targetport" not in answer["spec"]["ports"][0]
    response, _ = request(server, "PUT", f"{SERVICES}/{name}{wish}", answer | {"colour": "red"})
    assert len(response.headers.get_all("Warning") or []) == warned


def test_another_wish_is_none(server: LabServer) -> None:
    with pytest.raises(ApiError, match="fieldValidation"):
        server.local.create(SERVICES, typed("other"), fieldValidation="strict")


def test_a_list_one_object_and_a_watch_as_tables(server: LabServer) -> None:
    made = server.local.create(SERVICES, {"metadata": {"name": "shown"}} | {"spec": {"ports": [
        {"port": 80}]}})  # fmt: skip
    version = int(made["metadata"]["resourceVersion"]) - 1
    for path in (SERVICES, f"{SERVICES}/shown"):
        _, table = request(server, "GET", path, Accept=AS_TABLE)
        assert (table["kind"], table["apiVersion"]) == ("Table", "meta.k8s.io/v1")
        columns = [c["name"].upper() for c in table["columnDefinitions"] if not c["priority"]]
        assert columns == ["NAME", "TYPE", "CLUSTER-IP", "EXTERNAL-IP", "PORT(S)", "AGE"]
        [row] = [row for row in table["rows"] if row["cells"][0] == "shown"]
        assert row["cells"][4] == "80/TCP"
        assert row["object"]["kind"] == "PartialObjectMetadata"
        assert row["object"]["metadata"]["uid"] == made["metadata"]["uid"]
        assert table["metadata"]["resourceVersion"]
    watch = f"{SERVICES}?watch=1&resourceVersion={version}&timeoutSeconds=1&includeObject=Object"
    connection = http.client.HTTPConnection("localhost")
    connection.sock = socket.socket(socket.AF_UNIX)
    connection.sock.connect(str(server.socket))
    connection.request("GET", watch, headers={"Accept": AS_TABLE})
    event = json.loads(connection.getresponse().readline())
    connection.close()
    assert (event["type"], event["object"]["kind"]) == ("ADDED", "Table")
    assert event["object"]["rows"][0]["object"]["spec"] == made["spec"]


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.resource)
def test_openapi_says_what_a_kind_takes(server: LabServer, kind: Kind) -> None:
    _, index = request(server, "GET", "/openapi/v3")
    place = kind.collection_path(None).strip("/").rpartition("/")[0]
    _, document = request(server, "GET", index["paths"][place]["serverRelativeURL"])
    name = f"{kind.collection_path('{namespace}')}/{{name}}"
    patch = document["paths"][name]["patch"]
    assert patch["x-kubernetes-group-version-kind"]["kind"] == kind.name
    assert {one["name"] for one in patch["parameters"]} == {"dryRun", "fieldValidation"}
    schemas = document["components"]["schemas"]
    assert "metadata" in schemas[kind.name]["properties"]
    named = json.dumps(document).count("#/components/schemas/")
    assert named, "references"
    for part in json.dumps(schemas).split("#/components/schemas/")[1:]:
        assert part.split('"')[0] in schemas

"""Ingresses, IngressClasses and Secrets as the API takes them."""

import base64
from typing import Any

import pytest

from ebpf_lb.apiserver.errors import StatusError
from ebpf_lb.apiserver.kinds import INGRESS, INGRESS_CLASS, SECRET, Kind
from ebpf_lb.apiserver.registry import Registry
from ebpf_lb.apiserver.store import Stored
from tests.unit.apiserver.cluster import registry
from tests.unit.apiserver.test_table import render

Json = dict[str, Any]
BACKEND = {"service": {"name": "tea", "port": {"number": 80}}}


@pytest.fixture
def made() -> Registry:
    return registry()


def ingress(**spec: Any) -> Json:
    path = {"path": "/tea", "pathType": "Prefix", "backend": BACKEND}
    rules = [{"host": "cafe.example.com", "http": {"paths": [path]}}]
    return {"metadata": {"name": "cafe"}, "spec": {"rules": rules} | spec}


def with_path(**path: Any) -> Json:
    whole = {"path": "/tea", "pathType": "Prefix", "backend": BACKEND} | path
    return ingress(rules=[{"http": {"paths": [whole]}}])


def with_port(**port: Any) -> Json:
    return ingress(defaultBackend={"service": {"name": "tea", "port": port}})


def refused(made: Registry, kind: Kind, object_: Json) -> str:
    with pytest.raises(StatusError) as caught:
        made.create(kind, "" if not kind.namespaced else "default", object_)
    assert caught.value.code == 422
    return caught.value.message


@pytest.mark.parametrize(
    ("object_", "text"),
    [
        (ingress(rules=[]), "either `defaultBackend` or `rules` must be specified"),
        (ingress(ingressClassName="A b"), "spec.ingressClassName: Invalid value"),
        (ingress(rules=[{"host": "10.0.0.1"}]), "spec.rules[0].host: Invalid value"),
        (ingress(rules=[{"host": "a.*.com"}]), "spec.rules[0].host: Invalid value"),
        (ingress(rules=[{"http": {"paths": []}}]), "spec.rules[0].http.paths: Required value"),
        (with_path(pathType=None), "paths[0].pathType: Required value"),
        (with_path(pathType="Regex"), "paths[0].pathType: Unsupported value"),
        (with_path(path="tea"), "must be an absolute path"),
        (with_path(path=""), "must be an absolute path"),
        (with_path(path="/a//b"), "must not contain '//'"),
        (with_path(path="/a/../b"), "must not contain '/../'"),
        (with_path(path="/a/.."), "cannot end with '/..'"),
        (with_path(path="a", pathType="ImplementationSpecific"), "must be an absolute path"),
        (with_path(backend={}), "paths[0].backend: Required value"),
        (with_path(backend={"service": {"name": "tea"}}), "port name or number is required"),
        (with_port(number=0), "port name or number is required"),
        (with_port(number=70000), "must be between 1 and 65535"),
        (with_port(name="http", number=80), "cannot set both port name & port number"),
        (with_port(name="Http"), "spec.defaultBackend.service.port.name: Invalid value"),
        (
            ingress(defaultBackend=BACKEND | {"resource": {"kind": "X", "name": "x"}}),
            "cannot set both resource and service backends",
        ),
        (ingress(tls=[{"hosts": ["-"]}]), "spec.tls[0].hosts[0]: Invalid value"),
        (ingress(tls=[{"secretName": "A"}]), "spec.tls[0].secretName: Invalid value"),
    ],
)
def test_what_an_ingress_cannot_be(made: Registry, object_: Json, text: str) -> None:
    assert text in refused(made, INGRESS, object_)


def test_what_an_ingress_can_be(made: Registry) -> None:
    for number, object_ in enumerate(
        (
            ingress(tls=[{"hosts": ["*.example.com"], "secretName": "a.b"}]),
            ingress(rules=[{"host": "*.example.com"}], ingressClassName="nginx"),
            ingress(rules=[], defaultBackend=BACKEND),
            with_path(path="", pathType="ImplementationSpecific"),
            with_port(name="http"),
        )
    ):
        object_["metadata"]["name"] = f"cafe{number}"
        stored = made.create(INGRESS, "default", object_)
        assert stored.metadata["generation"] == 1
        assert stored.status == {"loadBalancer": {}}


def test_its_status_is_the_controllers(made: Registry) -> None:
    made.create(INGRESS, "default", ingress() | {"status": {"loadBalancer": {"ingress": []}}})
    given = {"status": {"loadBalancer": {"ingress": [{"ip": "172.29.0.1"}]}}}
    merge = "application/merge-patch+json"
    made.patch(INGRESS, "default", "cafe", merge, given, subresource="status")
    changed = made.update(INGRESS, "default", "cafe", ingress(ingressClassName="nginx"))
    assert changed.status == given["status"]
    assert changed.metadata["generation"] == 2


def test_tables(made: Registry) -> None:
    stored = made.create(INGRESS, "default", ingress(ingressClassName="nginx", tls=[{}]))
    shown = stored.object | {"status": {"loadBalancer": {"ingress": [{"ip": "172.29.0.1"}]}}}
    header, row = render(INGRESS, [shown], namespaces=False, wide=False).splitlines()
    assert header.split() == ["NAME", "CLASS", "HOSTS", "ADDRESS", "PORTS", "AGE"]
    assert row.split()[:6] == ["cafe", "nginx", "cafe.example.com", "172.29.0.1", "80,", "443"]
    parameters = {"apiGroup": "k8s.example.net", "kind": "Parameters", "name": "p"}
    object_ = {
        "metadata": {"name": "nginx"},
        "spec": {"controller": "k8s.io/ingress-nginx", "parameters": parameters},
    }
    stored = made.create(INGRESS_CLASS, "", object_)
    row = render(INGRESS_CLASS, [stored.object], namespaces=False, wide=False).splitlines()[1]
    assert row.split()[:3] == ["nginx", "k8s.io/ingress-nginx", "Parameters.k8s.example.net/p"]


def test_ingress_classes(made: Registry) -> None:
    def of(controller: str) -> Json:
        return {"metadata": {"name": "nginx"}, "spec": {"controller": controller}}

    assert "must be a domain-prefixed path" in refused(made, INGRESS_CLASS, of("nginx"))
    assert "spec.controller: Invalid value" in refused(made, INGRESS_CLASS, of("-/nginx"))
    made.create(INGRESS_CLASS, "", of("example.com/a/b"))
    with pytest.raises(StatusError, match="field is immutable"):
        made.update(INGRESS_CLASS, "", "nginx", of("example.com/c"))


def secret(type_: str = "Opaque", **fields: Any) -> Json:
    return {"metadata": {"name": "s"}, "type": type_} | fields


def text_of(stored: Stored, key: str) -> str:
    return base64.b64decode(stored.object["data"][key]).decode()


def test_secrets(made: Registry) -> None:
    stored = made.create(SECRET, "default", {"metadata": {"name": "s"}, "stringData": {"a": "x"}})
    assert stored.object["type"] == "Opaque"
    assert text_of(stored, "a") == "x"
    assert "stringData" not in stored.object
    update = stored.object | {"stringData": {"b": "y"}}
    assert text_of(made.update(SECRET, "default", "s", update), "a") == "x"
    with pytest.raises(StatusError, match=r"type: .*field is immutable"):
        made.update(SECRET, "default", "s", secret("other"))


def test_what_a_secret_cannot_be(made: Registry) -> None:
    assert "data[a]: Invalid value" in refused(made, SECRET, secret(data={"a": "?"}))
    message = refused(made, SECRET, secret("kubernetes.io/tls", data={"tls.crt": ""}))
    assert "data[tls.key]: Required value" in message
    made.create(SECRET, "default", secret(data={"a": ""}, immutable=True))
    with pytest.raises(StatusError, match="immutable"):
        made.update(SECRET, "default", "s", secret(data={"a": "YQ=="}, immutable=True))

"""Ingresses and what belongs to them, as hosts and paths."""

import base64
from typing import Any

from ebpf_lb.containers.ingress.rules import ANY_HOST, Host, Sites, sites

Json = dict[str, Any]

CLASSES = [
    {"metadata": {"name": "nginx"}, "spec": {"controller": "k8s.io/ingress-nginx"}},
    {"metadata": {"name": "other"}, "spec": {"controller": "example.com/other"}},
]


def ingress(name: str = "a", age: int = 0, annotations: Json | None = None, **spec: Any) -> Json:
    return {
        "metadata": {
            "name": name,
            "namespace": "shop",
            "creationTimestamp": f"2026-01-01T00:00:{59 - age:02}Z",
            "annotations": annotations or {},
        },
        "spec": {"ingressClassName": "nginx"} | spec,
    }


def rule(host: str, *paths: tuple[str, str, str]) -> Json:
    """paths: (path, pathType, Service)."""
    listed = [
        {"path": path, "pathType": kind, "backend": backend(service)}
        for path, kind, service in paths
    ]
    return {"host": host, "http": {"paths": listed}}


def backend(service: str, **port: Any) -> Json:
    return {"service": {"name": service, "port": port or {"number": 80}}}


def service(name: str) -> Json:
    ports = [{"name": "http", "port": 80}, {"name": "admin", "port": 81}]
    spec = {"ports": ports, "ipFamilies": ["IPv4", "IPv6"]}
    return {"metadata": {"name": name, "namespace": "shop"}, "spec": spec}


def slices(name: str, *addresses: str, ready: bool | None = True) -> list[Json]:
    """One of each family, as a dual-stack Service has them."""
    labels = {"kubernetes.io/service-name": name}
    return [
        {
            "metadata": {"namespace": "shop", "labels": labels},
            "addressType": family,
            "ports": [{"name": "http", "port": 8080}, {"name": "admin", "port": 8081}],
            "endpoints": [
                {"addresses": [prefix + address], "conditions": {"ready": ready}}
                for address in addresses
            ],
        }
        for family, prefix in (("IPv4", ""), ("IPv6", "fd00::"))
    ]


SERVICES = [service("tea"), service("coffee")]
SLICES = [*slices("tea", "10.0.0.1", "10.0.0.2"), *slices("coffee", "10.0.0.3")]


def made(*ingresses: Json, secrets: list[Json] | None = None) -> Sites:
    return sites(ingresses, CLASSES, SERVICES, SLICES, secrets or [])


def host(found: Sites, name: str) -> Host:
    [one] = [each for each in found.hosts if each.name == name]
    return one


def leads(found: Sites, name: str) -> dict[tuple[str, bool], str]:
    return {(loc.path, loc.exact): loc.backend.service for loc in host(found, name).locations}


def test_paths_lead_to_the_pods_of_their_services() -> None:
    found = made(
        ingress(rules=[rule("cafe", ("/tea", "Prefix", "tea"), ("/c", "Exact", "coffee"))])
    )
    assert leads(found, "cafe") == {("/tea", False): "tea", ("/c", True): "coffee"}
    assert [b.endpoints for b in found.backends] == [
        ("10.0.0.3:8080",),
        ("10.0.0.1:8080", "10.0.0.2:8080"),
    ]
    assert found.owners == (("shop", "a"),)
    assert found.problems == ()


def test_a_port_by_its_name() -> None:
    paths = [{"path": "/", "pathType": "Prefix", "backend": backend("coffee", name="admin")}]
    found = made(ingress(rules=[{"host": "cafe", "http": {"paths": paths}}]))
    assert found.backends[0].endpoints == ("10.0.0.3:8081",)


def test_endpoints_that_are_not_ready_get_nothing() -> None:
    one = ingress(rules=[rule("cafe", ("/", "Prefix", "tea"))])
    for ready, count in ((True, 1), (None, 1), (False, 0)):
        listed = slices("tea", "10.0.0.1", ready=ready)
        found = sites([one], CLASSES, SERVICES, listed, [])
        assert len(found.backends[0].endpoints) == count


def test_other_controllers_ingresses_are_left_alone() -> None:
    rules = [rule("cafe", ("/", "Prefix", "tea"))]
    other = ingress("b", rules=rules, ingressClassName="other")
    none = ingress("c", rules=rules)
    del none["spec"]["ingressClassName"]
    assert made(other, none).owners == ()
    by_annotation = none | {
        "metadata": none["metadata"] | {"annotations": {"kubernetes.io/ingress.class": "nginx"}}
    }
    assert made(by_annotation).owners == (("shop", "c"),)
    default = {
        "metadata": {
            "name": "nginx",
            "annotations": {"ingressclass.kubernetes.io/is-default-class": "true"},
        },
        "spec": {"controller": "k8s.io/ingress-nginx"},
    }
    assert sites([none], [default], [], [], []).owners == (("shop", "c"),)


def test_the_older_ingress_has_a_path_that_two_want() -> None:
    young = ingress("a", age=1, rules=[rule("cafe", ("/tea", "Prefix", "coffee"))])
    old = ingress("b", age=2, rules=[rule("cafe", ("/tea", "Prefix", "tea"))])
    assert leads(made(young, old), "cafe") == {("/tea", False): "tea"}


def test_default_backends_take_what_nobody_has() -> None:
    one = ingress(
        defaultBackend=backend("coffee"),
        rules=[rule("cafe", ("/tea", "Prefix", "tea")), rule("all", ("/", "Prefix", "tea"))],
    )
    found = made(one)
    assert leads(found, "cafe") == {("/tea", False): "tea", ("/", False): "coffee"}
    assert leads(found, "all") == {("/", False): "tea"}
    assert leads(found, ANY_HOST) == {("/", False): "coffee"}
    assert leads(made(), ANY_HOST) == {}


def secret(**data: bytes) -> Json:
    encoded = {key.replace("_", "."): base64.b64encode(v).decode() for key, v in data.items()}
    return {"metadata": {"name": "pair", "namespace": "shop"}, "data": encoded}


def test_certificates_and_what_is_wrong_with_them() -> None:
    one = ingress(
        rules=[rule("cafe", ("/", "Prefix", "tea")), rule("plain", ("/", "Prefix", "tea"))],
        tls=[{"hosts": ["cafe"], "secretName": "pair"}],
    )
    found = made(one, secrets=[secret(tls_crt=b"C", tls_key=b"K")])
    cafe, plain = host(found, "cafe"), host(found, "plain")
    assert (cafe.certificate, cafe.tls, cafe.redirect) == (b"C\nK", True, True)
    assert (plain.certificate, plain.tls, plain.redirect) == (None, False, False)

    found = made(one)
    assert found.problems == ("shop/a: Secret pair is not there",)
    assert host(found, "cafe").certificate is None
    found = made(one, secrets=[secret(tls_crt=b"C")])
    assert found.problems == ("shop/a: Secret pair has no tls.crt and tls.key",)

    one["metadata"]["annotations"]["nginx.ingress.kubernetes.io/ssl-redirect"] = "false"
    assert not host(made(one), "cafe").redirect


def test_what_does_not_lead_anywhere_is_told() -> None:
    rules = [rule("cafe", ("/", "Prefix", "water"), ("/x", "Exact", "tea"))]
    rules[0]["http"]["paths"][1]["backend"] = backend("tea", number=99)
    found = made(ingress(rules=rules))
    assert found.problems == (
        "shop/a: there is no Service shop/water",
        "shop/a: Service shop/tea has no port 99",
    )
    assert [b.endpoints for b in found.backends] == [(), ()]


def test_a_rewrite_is_a_path_and_nothing_else() -> None:
    target = "nginx.ingress.kubernetes.io/rewrite-target"
    rules = [rule("cafe", ("/tea", "Prefix", "tea"))]
    found = made(ingress(rules=rules, annotations={target: "/x"}))
    assert [loc.rewrite for loc in host(found, "cafe").locations] == ["/x"]
    found = made(ingress(rules=rules, annotations={target: "/; return 200"}))
    assert [loc.rewrite for loc in host(found, "cafe").locations] == [""]
    assert "must be a plain path" in found.problems[0]

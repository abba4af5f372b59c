"""Raw Services to values: everything once, bad items refused one by one."""

import time
from typing import Any

import pytest

from ebpf_lb.kube.parse import (
    parse_service,
)
from ebpf_lb.kube.reader import MOST_PROBLEMS
from ebpf_lb.model.key import ObjectKey
from ebpf_lb.model.service import (
    Algorithm,
    IPMode,
    LoadBalancerIngress,
    Service,
    ServicePort,
    ServiceType,
    TrafficPolicy,
)
from ebpf_lb.model.values import Protocol, parse_address, parse_network
from tests.unit.kube.raw import ANNOTATION, META, a_service


def value(raw: dict[str, Any]) -> Service:
    parsed = parse_service(raw)
    assert parsed.problems == ()
    assert parsed.value is not None
    return parsed.value


def test_a_whole_service() -> None:
    raw = {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {**META, "labels": {"a": "b"}, "uid": "x", "managedFields": [{}]},
        "spec": {
            "type": "LoadBalancer",
            "clusterIP": "10.96.0.1",
            "clusterIPs": ["10.96.0.1", "fd00:96::1"],
            "ipFamilies": ["IPv4", "IPv6"],
            "ports": [
                {"name": "http", "port": 80, "protocol": "TCP", "targetPort": 8080},
                {"name": "dns", "port": 53, "protocol": "UDP", "nodePort": 30053},
            ],
            "externalIPs": ["203.0.113.9"],
            "internalTrafficPolicy": "Cluster",
            "externalTrafficPolicy": "Local",
            "sessionAffinity": "ClientIP",
            "sessionAffinityConfig": {"clientIP": {"timeoutSeconds": 60}},
            "loadBalancerSourceRanges": [" 198.51.100.0/24 ", "2001:db8::/32"],
            "healthCheckNodePort": 32000,
            "trafficDistribution": "PreferClose",
        },
        "status": {
            "loadBalancer": {
                "ingress": [
                    {"ip": "203.0.113.1", "ipMode": "VIP"},
                    {"ip": "203.0.113.2", "ipMode": "Proxy"},
                    {"ip": "2001:db8::1"},
                    {"hostname": "lb.example.org"},
                ]
            }
        },
    }
    assert value(raw) == Service(
        key=ObjectKey("default", "web"),
        created_s=1767323045,
        type=ServiceType.LOAD_BALANCER,
        cluster_ips=(parse_address("10.96.0.1"), parse_address("fd00:96::1")),
        ports=(
            ServicePort("http", Protocol.TCP, 80),
            ServicePort("dns", Protocol.UDP, 53, 30053),
        ),
        external_ips=(parse_address("203.0.113.9"),),
        load_balancer=(
            LoadBalancerIngress(parse_address("203.0.113.1")),
            LoadBalancerIngress(parse_address("203.0.113.2"), IPMode.PROXY),
            LoadBalancerIngress(parse_address("2001:db8::1")),
        ),
        external_policy=TrafficPolicy.LOCAL,
        affinity_timeout_s=60,
        source_ranges=(parse_network("198.51.100.0/24"), parse_network("2001:db8::/32")),
        health_check_node_port=32000,
    )


def test_defaults() -> None:
    assert value(a_service()) == Service(
        key=ObjectKey("default", "web"),
        created_s=1767323045,
        type=ServiceType.CLUSTER_IP,
        cluster_ips=(parse_address("10.96.0.1"),),
        ports=(ServicePort("", Protocol.TCP, 80),),
    )


@pytest.mark.parametrize(
    "spec", [{"clusterIP": "None"}, {"clusterIP": "None", "clusterIPs": ["None"]},
             {"clusterIP": ""}, {"clusterIP": None}]
)  # fmt: skip
def test_headless_and_not_yet_allocated(spec: dict[str, Any]) -> None:
    assert value(a_service(**spec)).cluster_ips == ()


@pytest.mark.rule("KI-11")
def test_labels_that_give_a_service_to_others() -> None:
    name, headless = "service.kubernetes.io/service-proxy-name", "service.kubernetes.io/headless"
    assert value(a_service({"labels": {name: "x"}})).other_proxy
    assert value(a_service({"labels": {headless: ""}})).headless_label
    assert not value(a_service({"labels": {"x": headless}})).headless_label


@pytest.mark.rule("KI-18")
@pytest.mark.parametrize(
    ("spec", "annotation", "expected"),
    [
        ({}, None, None),
        ({"loadBalancerSourceRanges": []}, None, None),
        ({}, "", None),
        ({}, " 10.0.0.0/8 , 192.0.2.0/24", ["10.0.0.0/8", "192.0.2.0/24"]),
        ({"loadBalancerSourceRanges": ["10.0.0.0/8"]}, "192.0.2.0/24", ["10.0.0.0/8"]),
        ({"loadBalancerSourceRanges": ["10.0.0.0/8", "0.0.0.0/0"]}, None, None),
        ({"loadBalancerSourceRanges": ["::/0"]}, None, None),
        ({"loadBalancerSourceRanges": ["10.0.0.1"]}, None, ["10.0.0.1/32"]),
    ],
)
def test_source_ranges(
    spec: dict[str, Any], annotation: str | None, expected: list[str] | None
) -> None:
    metadata = {"annotations": {ANNOTATION: annotation}} if annotation is not None else {}
    found = value(a_service(metadata, **spec)).source_ranges
    assert (found if found is None else [str(network) for network in found]) == expected


def test_a_misspelt_range_does_not_open_the_door() -> None:
    parsed = parse_service(a_service(loadBalancerSourceRanges=["10.0.0.0/33"]))
    assert parsed.value is not None and parsed.value.source_ranges == ()
    assert len(parsed.problems) == 1


@pytest.mark.rule("AF-2")
@pytest.mark.parametrize(
    ("spec", "seconds"),
    [
        ({}, 0),
        ({"sessionAffinity": "None"}, 0),
        ({"sessionAffinity": "ClientIP"}, 10800),
        ({"sessionAffinity": "ClientIP", "sessionAffinityConfig": {"clientIP": {}}}, 10800),
    ],
)
def test_affinity(spec: dict[str, Any], seconds: int) -> None:
    assert value(a_service(**spec)).affinity_timeout_s == seconds


@pytest.mark.parametrize(
    ("spec", "field", "kept"),
    [
        ({"externalIPs": ["10.0.0.256", "203.0.113.9"]}, "spec.externalIPs[0] '10.0.0.256'",
         {"external_ips": (parse_address("203.0.113.9"),)}),
        ({"clusterIP": "here"}, "spec.clusterIP 'here'", {"cluster_ips": ()}),
        ({"ports": [{"port": 0}, {"name": "b", "port": 81}]}, "spec.ports[0].port 0",
         {"ports": (ServicePort("b", Protocol.TCP, 81),)}),
        ({"ports": [{"port": 65536}]}, "spec.ports[0].port 65536", {"ports": ()}),
        ({"ports": [{"port": True}]}, "spec.ports[0].port True", {"ports": ()}),
        ({"ports": [{"port": 80, "protocol": "ICMP"}]}, "spec.ports[0].protocol 'ICMP'",
         {"ports": ()}),
        ({"ports": [{"port": 80, "nodePort": -1}]}, "spec.ports[0].nodePort -1",
         {"ports": (ServicePort("", Protocol.TCP, 80),)}),
        ({"ports": [{"port": 80}, {"port": 81}]}, "spec.ports[1].name ''",
         {"ports": (ServicePort("", Protocol.TCP, 80),)}),
        ({"ports": "x"}, "spec.ports 'x'", {"ports": ()}),
        ({"type": "Magic"}, "spec.type 'Magic'", {"type": ServiceType.CLUSTER_IP}),
        ({"internalTrafficPolicy": "Near"}, "spec.internalTrafficPolicy 'Near'", {}),
        ({"sessionAffinity": "ClientIP", "sessionAffinityConfig": {"clientIP":
          {"timeoutSeconds": 86401}}}, "timeoutSeconds 86401", {"affinity_timeout_s": 10800}),
    ],
)  # fmt: skip
def test_what_is_impossible_is_refused_alone(
    spec: dict[str, Any], field: str, kept: dict[str, Any]
) -> None:
    parsed = parse_service(a_service(**spec))
    (problem,) = parsed.problems
    assert problem.startswith(f"Service default/web: {'' if 'timeout' in field else field}")
    assert field in problem and problem.endswith(".") and "is ignored: " in problem
    assert parsed.value is not None
    for name, expected in kept.items():
        assert getattr(parsed.value, name) == expected


def annotated(**annotations: object) -> dict[str, Any]:
    given = {f"ebpf-lb.io/{name}": value for name, value in annotations.items()}
    return {"metadata": META | {"annotations": given}, "spec": {"clusterIP": "10.96.0.1"}}


@pytest.mark.parametrize(
    ("annotations", "algorithm", "weights"),
    [
        ({}, None, {}),
        ({"algorithm": "maglev"}, Algorithm.MAGLEV, {}),
        ({"algorithm": "random"}, Algorithm.RANDOM, {}),
        ({"algorithm": "rr"}, Algorithm.ROUND_ROBIN, {}),
        ({"algorithm": "lc"}, Algorithm.LEAST_CONNECTIONS, {}),
        ({"algorithm": "sh"}, Algorithm.SOURCE_HASH, {}),
        ({"weights": "node2=5"}, None, {"node2": 5}),
        ({"algorithm": "random", "weights": "a=2"}, Algorithm.RANDOM, {"a": 2}),
        (
            {"algorithm": "maglev", "weights": " node2 = 5,10.0.0.7=1, fd00::7=100"},
            Algorithm.MAGLEV,
            {"node2": 5, parse_address("10.0.0.7"): 1, parse_address("fd00::7"): 100},
        ),
    ],
)
def test_how_connections_are_spread(
    annotations: dict[str, object], algorithm: Algorithm | None, weights: dict[bytes | str, int]
) -> None:
    parsed = parse_service(annotated(**annotations))
    assert parsed.problems == () and parsed.value is not None
    assert parsed.value.algorithm is algorithm
    assert dict(parsed.value.weights) == weights


@pytest.mark.parametrize(
    ("annotations", "refused", "left"),
    [
        ({"algorithm": "rnd"}, "'rnd' is ignored: it is unknown here", {}),
        ({"algorithm": 3}, "3 is ignored: it is unknown here", {}),
        ({"algorithm": "wrr", "weights": "a=2"}, "'wrr' is ignored: it is unknown here", {"a": 2}),
        ({"weights": "a=2,b=0"}, "'b=0' is ignored: it is not ADDRESS=WEIGHT", {"a": 2}),
        ({"weights": "a=2,b=101"}, "'b=101' is ignored", {"a": 2}),
        ({"weights": "a=2,b"}, "'b' is ignored", {"a": 2}),
        ({"weights": "a=2,=3"}, "'=3' is ignored", {"a": 2}),
        ({"weights": 7}, "7 is ignored", {}),
    ],
)
def test_what_no_spread_is(
    annotations: dict[str, object], refused: str, left: dict[str, int]
) -> None:
    parsed = parse_service(annotated(**annotations))
    (problem,) = parsed.problems
    assert refused in problem and "metadata.annotations[ebpf-lb.io/" in problem
    assert parsed.value is not None and dict(parsed.value.weights) == left


def test_the_order_of_weights_means_nothing() -> None:
    one, other = (parse_service(annotated(weights=w)).value for w in ("a=2,b=3", "b=3,a=2"))
    assert one == other


def test_cluster_dns_by_its_label() -> None:
    for label, is_dns in (("kube-dns", True), ("web", False)):
        assert value(a_service({"labels": {"k8s-app": label}})).cluster_dns is is_dns


@pytest.mark.parametrize(
    "name",
    ["ebpf-lb.io/weights", "service.beta.kubernetes.io/load-balancer-source-ranges"],
)
@pytest.mark.parametrize("item", ["", "x", "10.0.0.1=999", "10.0.0.0/33"])
def test_an_annotation_of_any_length_costs_little_and_says_little(name: str, item: str) -> None:
    """Every node reads every object, at every update of it."""
    text = f"{item}," * (250_000 // (len(item) + 1))
    raw = a_service()
    raw["metadata"]["annotations"] = {name: text}
    began = time.process_time()
    parsed = parse_service(raw)
    assert time.process_time() - began < 0.1  # milliseconds; 3 s before
    assert 1 <= len(parsed.problems) <= MOST_PROBLEMS + 1
    assert sum(map(len, parsed.problems)) < 4096
    assert parsed.value is not None
    guarded = name.startswith("service.beta")  # what cannot be read never opens anything
    assert parsed.value.source_ranges == (() if guarded else None)


def test_a_list_with_many_mistakes_tells_of_few() -> None:
    raw = a_service()
    raw["spec"]["externalIPs"] = [f"no address {number}" for number in range(10_000)]
    parsed = parse_service(raw)
    assert len(parsed.problems) == MOST_PROBLEMS + 1
    assert parsed.problems[-1].endswith(f"{10_000 - MOST_PROBLEMS} more fields are ignored.")


@pytest.mark.parametrize("address", ["127.0.0.1", "::1", "0.0.0.0", "::", "224.0.0.9", "ff02::1"])
def test_an_address_that_never_comes_from_outside_is_said_to_be_none(address: str) -> None:
    raw = a_service()
    raw["spec"]["externalIPs"] = [address, "192.0.2.1"]
    raw["status"] = {"loadBalancer": {"ingress": [{"ip": address}, {"ip": "192.0.2.2"}]}}
    parsed = parse_service(raw)
    assert parsed.value is not None
    assert parsed.value.external_ips == (parse_address("192.0.2.1"),)
    assert [one.address for one in parsed.value.load_balancer] == [parse_address("192.0.2.2")]
    assert len(parsed.problems) == 2
    assert all("never come from other machines" in text for text in parsed.problems)

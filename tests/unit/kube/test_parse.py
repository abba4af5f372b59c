"""Raw JSON to values: everything once, bad items refused one by one, nothing raised."""

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ebpf_lb.kube.parse import (
    parse_endpoints,
    parse_node,
    parse_service,
    parse_service_cidr,
    parse_slice,
)
from ebpf_lb.model.endpoints import NO_HINTS, EndpointPort, Hints
from ebpf_lb.model.key import ObjectKey
from ebpf_lb.model.node import Node
from ebpf_lb.model.service import (
    Algorithm,
    IPMode,
    LoadBalancerIngress,
    Service,
    ServicePort,
    ServiceType,
    TrafficPolicy,
)
from ebpf_lb.model.service_cidr import ServiceCIDR
from ebpf_lb.model.values import Family, Protocol, format_address, parse_address, parse_network

META = {"name": "web", "namespace": "default", "creationTimestamp": "2026-01-02T03:04:05Z"}
ANNOTATION = "service.beta.kubernetes.io/load-balancer-source-ranges"


def a_service(metadata: dict[str, Any] | None = None, **spec: Any) -> dict[str, Any]:
    return {
        "metadata": {**META, **(metadata or {})},
        "spec": {"clusterIP": "10.96.0.1", "ports": [{"port": 80}], **spec},
    }


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


def test_labels_that_give_a_service_to_others() -> None:
    name, headless = "service.kubernetes.io/service-proxy-name", "service.kubernetes.io/headless"
    assert value(a_service({"labels": {name: "x"}})).other_proxy
    assert value(a_service({"labels": {headless: ""}})).headless_label
    assert not value(a_service({"labels": {"x": headless}})).headless_label


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


def a_slice(*endpoints: Any, **fields: Any) -> dict[str, Any]:
    return {
        "metadata": {
            "name": "web-1",
            "namespace": "default",
            "labels": {"kubernetes.io/service-name": "web"},
        },
        "addressType": "IPv4",
        "ports": [{"name": "http", "port": 8080, "protocol": "TCP"}],
        "endpoints": list(endpoints),
        **fields,
    }


def test_a_slice() -> None:
    parsed = parse_slice(
        a_slice(
            {"addresses": ["10.0.0.1", "10.0.0.99"]},
            {
                "addresses": ["10.0.0.2"],
                "conditions": {"ready": False, "serving": True, "terminating": True},
                "nodeName": "node1",
                "zone": "a",
                "hints": {"forZones": [{"name": "a"}, {"name": "b"}], "forNodes": [{"name": "n"}]},
            },
            {"addresses": ["10.0.0.3"], "conditions": {"ready": None}, "hints": {}},
            {"addresses": []},
        )
    )
    assert parsed.problems == () and parsed.value is not None
    assert parsed.key == ObjectKey("default", "web-1")
    assert parsed.value.service == ObjectKey("default", "web")
    assert parsed.value.ports == (EndpointPort("http", Protocol.TCP, 8080),)
    first, second, third = parsed.value.endpoints()
    assert format_address(first.address) == "10.0.0.1"
    assert (first.ready, first.serving, first.terminating) == (True, True, False)
    assert first.node == "" and first.hints == NO_HINTS
    assert (second.ready, second.serving, second.terminating) == (False, True, True)
    assert second.node == "node1" and second.hints == Hints(("a", "b"), ("n",))
    assert (third.ready, third.serving, third.terminating) == (True, True, False)


def test_slices_that_are_not_for_us() -> None:
    for raw in (
        a_slice(addressType="FQDN"),
        a_slice(metadata={"name": "x", "namespace": "d"}),
        a_slice(metadata={"name": "x", "labels": {"kubernetes.io/service-name": ""}}),
    ):
        parsed = parse_slice(raw)
        assert parsed.value is None and parsed.problems == ()


def test_ports_without_name_or_number_are_passed_over() -> None:
    ports = [{"name": None, "port": 1}, {"port": 2}, {"name": "a"}, {"name": "b", "port": 0}]
    parsed = parse_slice(a_slice(ports=[*ports, {"name": "", "port": 3, "protocol": "SCTP"}]))
    assert parsed.problems == () and parsed.value is not None
    assert parsed.value.ports == (EndpointPort("", Protocol.SCTP, 3),)


def annotated(**annotations: object) -> dict[str, Any]:
    given = {f"ebpf-lb.io/{name}": value for name, value in annotations.items()}
    return {"metadata": META | {"annotations": given}, "spec": {"clusterIP": "10.96.0.1"}}


@pytest.mark.parametrize(
    ("annotations", "algorithm", "weights"),
    [
        ({}, None, {}),
        ({"algorithm": "maglev"}, Algorithm.MAGLEV, {}),
        ({"algorithm": "random"}, Algorithm.RANDOM, {}),
        ({"weights": "node2=5"}, Algorithm.MAGLEV, {"node2": 5}),
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
        ({"algorithm": "random", "weights": "a=2"}, "only maglev knows weights", {}),
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


def test_bad_endpoints_are_refused_alone() -> None:
    parsed = parse_slice(
        a_slice({"addresses": ["fd00::1"]}, {"addresses": ["x"]}, 7, {"addresses": ["10.0.0.4"]})
    )
    assert parsed.value is not None
    assert [format_address(e.address) for e in parsed.value.endpoints()] == ["10.0.0.4"]
    assert parsed.problems == (
        "EndpointSlice default/web-1: endpoints[0].addresses[0] 'fd00::1' is ignored: "
        "it is not an IPv4 address.",
        "EndpointSlice default/web-1: endpoints[1].addresses[0] 'x' is ignored: "
        "it is not an IPv4 address.",
        "EndpointSlice default/web-1: endpoints[2] 7 is ignored: it is not an object.",
    )


def test_equal_port_lists_are_held_once() -> None:
    one, two = parse_slice(a_slice()).value, parse_slice(a_slice()).value
    assert one is not None and two is not None
    assert one.ports is two.ports


def test_endpoints_become_slices() -> None:
    parsed = parse_endpoints(
        {
            "metadata": META,
            "subsets": [
                {
                    "addresses": [{"ip": "10.0.0.1", "nodeName": "node1"}, {"ip": "fd00::1"}],
                    "notReadyAddresses": [{"ip": "10.0.0.2"}, {"ip": "bad"}],
                    "ports": [{"name": "http", "port": 8080}, {"port": 9000, "protocol": "UDP"}],
                },
                {"addresses": [{"ip": "10.0.0.3"}], "ports": [{"name": "http", "port": 8081}]},
            ],
        }
    )
    assert parsed.key == ObjectKey("default", "web") and parsed.value is not None
    assert len(parsed.problems) == 1 and "subsets[0].notReadyAddresses[1].ip" in parsed.problems[0]
    four, six, second = parsed.value
    assert [(format_address(e.address), e.ready, e.serving, e.terminating, e.node)
            for e in four.endpoints()] == [
        ("10.0.0.1", True, True, False, "node1"), ("10.0.0.2", False, False, False, ""),
    ]  # fmt: skip
    assert (four.family, six.family, second.family) == (Family.IPV4, Family.IPV6, Family.IPV4)
    assert (
        four.ports
        == six.ports
        == (
            EndpointPort("http", Protocol.TCP, 8080),
            EndpointPort("", Protocol.UDP, 9000),
        )
    )
    assert second.ports == (EndpointPort("http", Protocol.TCP, 8081),)
    assert len({s.key for s in parsed.value}) == 3
    assert {s.service for s in parsed.value} == {ObjectKey("default", "web")}


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("2026-01-02T03:04:05Z", 1767323045.0),
        ("2026-01-02T03:04:05.123456789Z", 1767323045.123456),
        ("2026-01-02T04:04:05.5+01:00", 1767323045.5),
        ("yesterday", 0.0),
        ("2026-01-02T03:04:05", 0.0),
        (7, 0.0),
        (None, 0.0),
    ],
)
def test_when_the_change_behind_a_slice_happened(text: object, seconds: float) -> None:
    raw = a_slice({"addresses": ["10.0.0.1"]})
    raw["metadata"]["annotations"] = {"endpoints.kubernetes.io/last-change-trigger-time": text}
    parsed = parse_slice(raw)
    assert parsed.triggered_s == pytest.approx(seconds, abs=1e-6)
    assert parsed.problems == ()
    assert parsed.value == parse_slice(a_slice({"addresses": ["10.0.0.1"]})).value


def test_endpoints_that_do_not_hold_all_are_reported() -> None:
    """The controller stops at 1000 addresses and says so."""
    truncated = {"annotations": {"endpoints.kubernetes.io/over-capacity": "truncated"}}
    subsets = [{"addresses": [{"ip": "10.0.0.1"}], "ports": [{"port": 80}]}]
    parsed = parse_endpoints({"metadata": META | truncated, "subsets": subsets})
    assert parsed.value is not None and len(parsed.value) == 1
    assert parsed.problems == (
        "Endpoints default/web: metadata.annotations[endpoints.kubernetes.io/over-capacity] "
        "'truncated' tells that addresses beyond the first 1000 were left out; use EndpointSlices.",
    )


def test_a_service_cidr() -> None:
    cidrs = ["10.96.0.0/12", "fd00:10:96::/108", "10.0.0.1"]
    parsed = parse_service_cidr({"metadata": {"name": "kubernetes"}, "spec": {"cidrs": cidrs}})
    assert parsed.problems == () and parsed.value is not None
    assert parsed.value.networks == tuple(map(parse_network, cidrs))
    refused = parse_service_cidr({"metadata": {"name": "k"}, "spec": {"cidrs": ["x", 3]}})
    assert len(refused.problems) == 2
    assert refused.value == ServiceCIDR(ObjectKey("", "k"), ())


def test_a_node() -> None:
    parsed = parse_node(
        {
            "metadata": {
                "name": "node1",
                "labels": {"topology.kubernetes.io/zone": "a"},
                "deletionTimestamp": "2026-01-01T00:00:00Z",
            },
            "spec": {
                "podCIDR": "10.244.1.0/24",
                "podCIDRs": ["10.244.1.0/24", "fd00:244:1::/64"],
                "taints": [{"key": "ToBeDeletedByClusterAutoscaler", "effect": "NoSchedule"}],
            },
            "status": {
                "addresses": [
                    {"type": "Hostname", "address": "node1"},
                    {"type": "ExternalIP", "address": "198.51.100.1"},
                    {"type": "InternalIP", "address": "192.168.0.1"},
                    {"type": "InternalIP", "address": "fd00:192::1"},
                ]
            },
        }
    )
    assert parsed.problems == ()
    assert parsed.value == Node(
        name="node1",
        zone="a",
        addresses=tuple(map(parse_address, ["192.168.0.1", "fd00:192::1", "198.51.100.1"])),
        pod_networks=(parse_network("10.244.1.0/24"), parse_network("fd00:244:1::/64")),
        taints=frozenset({"ToBeDeletedByClusterAutoscaler"}),
        deleting=True,
    )
    assert parse_node({"metadata": {"name": "n"}}).value == Node(name="n")


# nothing that a server may send raises

NAMES = st.sampled_from(
    ["metadata", "name", "namespace", "labels", "annotations", "creationTimestamp", "spec",
     "status", "type", "clusterIP", "clusterIPs", "ports", "port", "protocol", "nodePort",
     "externalIPs", "loadBalancer", "ingress", "ip", "ipMode", "internalTrafficPolicy",
     "externalTrafficPolicy", "sessionAffinity", "sessionAffinityConfig", "clientIP",
     "timeoutSeconds", "loadBalancerSourceRanges", "healthCheckNodePort", "addressType",
     "endpoints", "addresses", "conditions", "ready", "nodeName", "hints", "forZones", "forNodes",
     "subsets", "notReadyAddresses", "address", "podCIDR", "podCIDRs", "taints", "key", "items",
     "kubernetes.io/service-name", ANNOTATION, "topology.kubernetes.io/zone"]
)  # fmt: skip
LEAVES = st.one_of(
    st.none(), st.booleans(), st.integers(-1, 70000), st.floats(), st.text(max_size=3),
    st.sampled_from(["10.0.0.1", "fd00::1", "IPv4", "ClientIP", "None", "TCP", "10.0.0.0/8"]),
)  # fmt: skip
JSON = st.recursive(
    LEAVES,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMES, inner, max_size=6),
    max_leaves=25,
)
PARSERS = [parse_service, parse_slice, parse_endpoints, parse_node, parse_service_cidr]
NAMED = {"name": "web", "namespace": "default", "labels": {"kubernetes.io/service-name": "web"}}


@settings(max_examples=400, deadline=None)
@given(st.sampled_from(PARSERS), st.dictionaries(NAMES, JSON, max_size=5), st.booleans())
def test_parsing_never_raises(parse: Any, raw: dict[str, Any], named: bool) -> None:
    if named:
        raw = {"addressType": "IPv4", **raw, "metadata": NAMED}
    parsed = parse(raw)
    assert isinstance(parsed.key, ObjectKey)
    assert all(isinstance(text, str) and text.endswith(".") for text in parsed.problems)
    hash(parsed.value)


@settings(max_examples=400, deadline=None)
@given(st.dictionaries(NAMES, JSON, max_size=6), st.dictionaries(NAMES, JSON, max_size=4))
def test_no_spec_raises(spec: dict[str, Any], more: dict[str, Any]) -> None:
    raw = {"metadata": NAMED, "addressType": "IPv4", "spec": spec, "status": more}
    for parse in PARSERS:
        parse(raw)  # type: ignore[operator]
    parse_slice({**raw, "endpoints": [spec, more], "ports": [spec, more]})
    parse_service({**raw, "spec": {"clusterIP": "10.96.0.1", "ports": [spec, more]}})
    parse_endpoints({**raw, "subsets": [spec, more]})

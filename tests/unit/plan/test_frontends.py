"""Kinds of Services, docs/semantics.md: which Services, which addresses, which policy."""

from typing import Any

import pytest

from ebpf_lb.model.key import ObjectKey
from ebpf_lb.model.service import (
    IPMode,
    LoadBalancerIngress,
    Service,
    ServicePort,
    ServiceType,
    TrafficPolicy,
)
from ebpf_lb.model.values import Family, Protocol, format_address, parse_network
from ebpf_lb.plan.cluster import Cluster
from ebpf_lb.plan.forwarding import Forwarding, FrontendFlag, FrontendKind
from ebpf_lb.plan.node import NodeView, nodeport_addresses
from tests.unit.plan.make import NODE, WEB, a_slice, address, addresses, endpoint, service, spelled

LOCAL = TrafficPolicy.LOCAL
VIP = (LoadBalancerIngress(address("203.0.113.1")),)
NODE_PORT = ServicePort("http", Protocol.TCP, 80, 30080)


def plan(of: Service, node: NodeView = NODE, *others: Service) -> tuple[Forwarding, ...]:
    cluster = Cluster(node)
    for each in (of, *others):
        cluster.set_service(each)
    cluster.set_slice(a_slice(endpoint("10.0.0.1"), endpoint("10.0.0.2", node="node1")))
    cluster.set_slice(a_slice(endpoint("fd00::1"), name="six"))
    return cluster.plan(of.key)


def shown(forwarding: Forwarding) -> list[str]:
    return [
        f"{f.kind.name} {format_address(f.address)}:{f.port}"
        + "".join(f" {flag.name}" for flag in FrontendFlag if flag in f.flags)
        for f in forwarding.frontends
    ]


@pytest.mark.rule("KI-10", "KI-11")
@pytest.mark.parametrize(
    "fields",
    [
        {"type": ServiceType.EXTERNAL_NAME},
        {"cluster_ips": ()},
        {"other_proxy": True},
        {"headless_label": True},
        {"ports": ()},
    ],
    ids=lambda fields: next(iter(fields)),
)
def test_not_ours_and_it_may_change_both_ways(fields: dict[str, Any]) -> None:
    assert plan(service(**fields)) == ()
    cluster = Cluster(NODE)
    for turn in (service(), service(**fields), service()):
        cluster.set_service(turn)
        assert cluster.take_changes() == [WEB]
        assert bool(cluster.plan(WEB)) is (turn == service())


def test_cluster_ip() -> None:
    (found,) = plan(service())
    assert str(found.name) == "default/web:http"
    assert shown(found) == ["CLUSTER_IP 10.96.0.1:80"]
    assert spelled(found.cluster) == ["10.0.0.1:8080", "10.0.0.2:8080*"]
    assert found.local == () and found.has_any
    assert found.source_ranges == () and found.affinity_timeout_s == 0


def test_a_service_without_endpoints_is_planned_too() -> None:
    cluster = Cluster(NODE)
    cluster.set_service(service())
    (found,) = cluster.plan(WEB)
    assert (found.cluster, found.local, found.has_any) == ((), (), False)


@pytest.mark.rule("KI-9")
def test_families_are_those_of_its_cluster_ips() -> None:
    dual = service(
        cluster_ips=addresses("10.96.0.1", "fd00:96::1"),
        external_ips=addresses("203.0.113.9", "2001:db8::9"),
        ports=(NODE_PORT,),
    )
    four, six = plan(dual)
    assert (four.family, six.family) == (Family.IPV4, Family.IPV6)
    assert shown(four) == [
        "CLUSTER_IP 10.96.0.1:80", "NODE_PORT 192.168.0.1:30080", "EXTERNAL_IP 203.0.113.9:80",
    ]  # fmt: skip
    assert shown(six) == [
        "EXTERNAL_IP 2001:db8::9:80", "CLUSTER_IP fd00:96::1:80", "NODE_PORT fd00:192::1:30080",
    ]  # fmt: skip
    assert spelled(six.cluster) == ["fd00::1:8080"]
    (only,) = plan(service(external_ips=addresses("2001:db8::9")))
    assert shown(only) == ["CLUSTER_IP 10.96.0.1:80"]


@pytest.mark.rule("KI-3")
def test_one_port_number_on_three_protocols_and_several_ports() -> None:
    ports = [ServicePort(p.name.lower(), p, 53) for p in Protocol]
    ports.append(ServicePort("admin", Protocol.TCP, 54))
    found = plan(service(ports=tuple(ports)))
    assert [(f.name.port, f.name.protocol) for f in found] == [
        ("admin", Protocol.TCP),
        ("sctp", Protocol.SCTP),
        ("tcp", Protocol.TCP),
        ("udp", Protocol.UDP),
    ]


@pytest.mark.rule("KI-2", "KI-4")
def test_load_balancer_addresses_by_mode() -> None:
    ingress = (*VIP, LoadBalancerIngress(address("203.0.113.2"), IPMode.PROXY))
    (found,) = plan(service(type=ServiceType.LOAD_BALANCER, load_balancer=ingress))
    assert shown(found) == ["CLUSTER_IP 10.96.0.1:80", "LOAD_BALANCER 203.0.113.1:80"]


@pytest.mark.rule("KI-1")
def test_policies_stand_on_the_frontends_they_are_for() -> None:
    every = {"ports": (NODE_PORT,), "load_balancer": VIP, "external_ips": addresses("203.0.113.9")}
    (external,) = plan(service(external_policy=LOCAL, **every))
    assert shown(external) == [
        "CLUSTER_IP 10.96.0.1:80",
        "NODE_PORT 192.168.0.1:30080 LOCAL",
        "LOAD_BALANCER 203.0.113.1:80 LOCAL",
        "EXTERNAL_IP 203.0.113.9:80 LOCAL",
    ]
    (internal,) = plan(service(internal_policy=LOCAL, **every))
    assert [text for text in shown(internal) if "LOCAL" in text] == [
        "CLUSTER_IP 10.96.0.1:80 LOCAL"
    ]


@pytest.mark.rule("EP-7")
@pytest.mark.parametrize(
    ("fields", "cluster", "local"),
    [
        ({}, True, False),
        ({"internal_policy": LOCAL}, False, True),
        ({"internal_policy": LOCAL, "ports": (NODE_PORT,)}, True, True),
        ({"internal_policy": LOCAL, "load_balancer": VIP}, True, True),
        ({"internal_policy": LOCAL, "external_ips": addresses("203.0.113.9")}, True, True),
        ({"external_policy": LOCAL}, True, False),
        ({"external_policy": LOCAL, "ports": (NODE_PORT,)}, True, True),
        ({"external_policy": LOCAL, "load_balancer": VIP}, True, True),
        (
            {
                "internal_policy": LOCAL,
                "load_balancer": (LoadBalancerIngress(address("203.0.113.1"), IPMode.PROXY),),
            },
            False,
            True,
        ),
    ],
)
def test_which_sets_are_used(fields: dict[str, Any], cluster: bool, local: bool) -> None:
    (found,) = plan(service(**fields))
    assert bool(found.cluster) is cluster
    assert spelled(found.local) == (["10.0.0.2:8080*"] if local else [])
    assert found.has_any


RANGES = (parse_network("198.51.100.0/24"), parse_network("2001:db8::/32"))


@pytest.mark.rule("KI-18")
def test_source_ranges_guard_balancer_addresses_only() -> None:
    (found,) = plan(
        service(
            source_ranges=RANGES,
            load_balancer=VIP,
            ports=(NODE_PORT,),
            external_ips=addresses("203.0.113.9"),
        )
    )
    assert [text for text in shown(found) if "SOURCE" in text] == [
        "LOAD_BALANCER 203.0.113.1:80 SOURCE_RANGES"
    ]
    assert found.source_ranges == RANGES[:1]
    (without,) = plan(service(source_ranges=RANGES))
    assert without.source_ranges == ()
    (nobody,) = plan(service(source_ranges=(), load_balancer=VIP))
    assert shown(nobody)[1].endswith("SOURCE_RANGES") and nobody.source_ranges == ()


@pytest.mark.rule("KI-19")
def test_a_node_inside_the_ranges_may_come_from_the_balancers_address() -> None:
    of = service(source_ranges=RANGES, load_balancer=VIP)
    inside = NodeView("node1", "", (), addresses("198.51.100.7"))
    assert plan(of, inside)[0].source_ranges == (RANGES[0], parse_network("203.0.113.1/32"))
    outside = NodeView("node1", "", (), addresses("192.0.2.7"))
    assert plan(of, outside)[0].source_ranges == RANGES[:1]


def test_affinity_is_carried() -> None:
    assert plan(service(affinity_timeout_s=10800))[0].affinity_timeout_s == 10800


def test_an_address_asked_for_twice_by_one_service_appears_once() -> None:
    twice = service(load_balancer=VIP, external_ips=addresses("203.0.113.1"), source_ranges=RANGES)
    (found,) = plan(twice)
    assert shown(found) == [
        "CLUSTER_IP 10.96.0.1:80", "LOAD_BALANCER 203.0.113.1:80 SOURCE_RANGES",
    ]  # fmt: skip


ALL = addresses(
    "127.0.0.1", "127.0.1.1", "::1", "169.254.1.1", "fe80::1", "192.168.0.1", "10.0.0.1", "fd00::1"
)  # fmt: skip


BOTH = ["127.0.0.1", "::1"]


@pytest.mark.rule("KI-12", "KI-16")
@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, ["10.0.0.1", "192.168.0.1", "fd00::1", *BOTH]),
        ({"words": ["all"]}, ["10.0.0.1", "192.168.0.1", "fd00::1", *BOTH]),
        ({"networks": [parse_network("10.0.0.0/8")]}, ["10.0.0.1"]),
        ({"networks": [parse_network("169.254.0.0/16"), parse_network("fe80::/10")]}, []),
        ({"networks": [parse_network("127.0.0.0/8"), parse_network("fe80::/10")]}, ["127.0.0.1"]),
        ({"networks": [parse_network("127.0.0.5/32")]}, ["127.0.0.1"]),
        ({"networks": [parse_network("::1/128")]}, ["::1"]),
        (
            {"networks": [parse_network("0.0.0.0/0")]},
            ["10.0.0.1", "192.168.0.1", "127.0.0.1"],
        ),
        ({"words": ["primary"], "primary": addresses("192.168.0.1")}, ["192.168.0.1"]),
        ({"words": ["primary"], "primary": addresses("192.0.2.1")}, []),
        ({"words": ["localhost"]}, BOTH),
        (
            {
                "words": ["primary", "localhost"],
                "primary": addresses("192.168.0.1"),
                "networks": [parse_network("fd00::/8")],
            },
            ["192.168.0.1", "fd00::1", *BOTH],
        ),
    ],
)
def test_node_port_addresses(options: dict[str, Any], expected: list[str]) -> None:
    assert [format_address(a) for a in nodeport_addresses(ALL, **options)] == sorted(
        expected, key=address
    )


@pytest.mark.rule("KI-14")
def test_on_loopback_there_is_no_sctp() -> None:
    """Only the socket hooks serve it, and these translate TCP and UDP."""
    ports = tuple(ServicePort(protocol.name.lower(), protocol, 80, 30080) for protocol in Protocol)
    node = NodeView("node1", "", addresses("127.0.0.1", "192.168.0.1"))
    cluster = Cluster(node)
    cluster.set_service(service(ports=ports))
    found = {
        (forwarding.name.protocol, format_address(frontend.address))
        for forwarding in cluster.plan(service().key)
        for frontend in forwarding.frontends
        if frontend.kind is FrontendKind.NODE_PORT
    }
    assert found == {
        *((protocol, "192.168.0.1") for protocol in Protocol),
        (Protocol.TCP, "127.0.0.1"),
        (Protocol.UDP, "127.0.0.1"),
    }


# clashes

OLD = service(ObjectKey("z", "old"), created_s=1, cluster_ips=addresses("10.96.0.2"),
              external_ips=addresses("203.0.113.9"))  # fmt: skip
YOUNG = service(ObjectKey("a", "young"), created_s=2, cluster_ips=addresses("10.96.0.3"),
                external_ips=addresses("203.0.113.9"))  # fmt: skip


def external(forwardings: tuple[Forwarding, ...]) -> int:
    return sum(
        frontend.kind is FrontendKind.EXTERNAL_IP
        for forwarding in forwardings
        for frontend in forwarding.frontends
    )


@pytest.mark.rule("VE-18")
@pytest.mark.parametrize("order", [(OLD, YOUNG), (YOUNG, OLD)], ids=["old first", "young first"])
def test_the_older_service_gets_the_address(order: tuple[Service, Service]) -> None:
    cluster = Cluster(NODE)
    for each in order:
        cluster.set_service(each)
    assert set(cluster.take_changes()) == {OLD.key, YOUNG.key}
    assert external(cluster.plan(OLD.key)) == 1
    assert external(cluster.plan(YOUNG.key)) == 0
    assert cluster.problems(OLD.key) == []
    assert cluster.problems(YOUNG.key) == [
        "Service a/young does not get 203.0.113.9:80/TCP: Service z/old has it; give one of them "
        "another address or port."
    ]
    cluster.delete_service(OLD.key)
    assert set(cluster.take_changes()) == {OLD.key, YOUNG.key}
    assert external(cluster.plan(YOUNG.key)) == 1


@pytest.mark.rule("VE-18")
def test_the_winner_by_age_then_name_then_kind() -> None:
    twin = service(ObjectKey("b", "twin"), created_s=2, cluster_ips=addresses("10.96.0.4"),
                   external_ips=addresses("203.0.113.9"))  # fmt: skip
    assert external(plan(YOUNG, NODE, twin)) == 1
    assert external(plan(twin, NODE, YOUNG)) == 0
    thief = service(ObjectKey("a", "thief"), created_s=0, cluster_ips=addresses("10.96.0.5"),
                    external_ips=addresses("10.96.0.2", "192.168.0.1"))  # fmt: skip
    assert external(plan(thief, NODE, OLD)) == 1  # 192.168.0.1 only: no ClusterIP is ever stolen
    node_port = service(ports=(ServicePort("http", Protocol.TCP, 81, 80),))
    assert external(plan(thief, NODE, OLD, node_port)) == 0


def test_another_protocol_or_port_is_no_clash() -> None:
    udp = service(
        ObjectKey("a", "udp"),
        cluster_ips=addresses("10.96.0.6"),
        external_ips=addresses("203.0.113.9"),
        ports=(ServicePort("http", Protocol.UDP, 80), ServicePort("x", Protocol.TCP, 81)),
    )
    assert external(plan(udp, NODE, OLD)) == 2

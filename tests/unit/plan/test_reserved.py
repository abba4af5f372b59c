"""What the node itself lives by is not a Service's: the way to the API server above all."""

from dataclasses import replace

import pytest

from ebpf_lb.model.key import ObjectKey
from ebpf_lb.model.service import LoadBalancerIngress, Service, ServicePort
from ebpf_lb.model.values import Protocol, format_endpoint
from ebpf_lb.plan.cluster import Cluster
from ebpf_lb.plan.reserved import API_SERVER, HEALTH, KUBERNETES, Reserved
from tests.unit.plan.make import NODE, WEB, address, addresses, service

SERVERS = addresses("192.168.0.250", "fd00::250")
OWN = NODE.nodeport_addresses[0]
GUARDED = replace(
    NODE,
    reserved=frozenset(
        {
            *(Reserved(server, 6443, Protocol.TCP, API_SERVER) for server in SERVERS),
            Reserved(OWN, 30256, Protocol.TCP, HEALTH),
        }
    ),
)
TWO = (ServicePort("api", Protocol.TCP, 6443), ServicePort("web", Protocol.TCP, 80))
IPS = addresses("10.96.0.1", "fd00:96::1")


def frontends(cluster: Cluster, key: ObjectKey = WEB) -> set[str]:
    return {
        format_endpoint(frontend.address, frontend.port)
        for forwarding in cluster.plan(key)
        for frontend in forwarding.frontends
    }


def both_ips(port: int) -> set[str]:
    return {format_endpoint(ip, port) for ip in IPS}


HOSTILE = {
    "externalIPs": {"external_ips": SERVERS},
    "status address": {"load_balancer": tuple(map(LoadBalancerIngress, SERVERS))},
    "both": {"external_ips": SERVERS, "load_balancer": tuple(map(LoadBalancerIngress, SERVERS))},
}


@pytest.mark.rule("CP-5")
@pytest.mark.parametrize("how", HOSTILE)
def test_no_service_takes_the_api_servers_address_and_port(how: str) -> None:
    cluster = Cluster(GUARDED)
    cluster.set_service(service(cluster_ips=IPS, ports=TWO, **HOSTILE[how]))
    # its other port there cuts nothing off
    rest = {format_endpoint(server, 80) for server in SERVERS}
    assert frontends(cluster) == both_ips(6443) | both_ips(80) | rest
    assert cluster.problems(WEB) == [
        f"Service default/web does not get {format_endpoint(server, 6443)}/TCP: there is the API "
        "server, by which this node lives; give it another address or port."
        for server in SERVERS
    ]


def test_a_cluster_ip_of_the_wrong_cluster() -> None:
    """Of a ClusterIP all other ports are refused: none of it can be where the API server is."""
    cluster = Cluster(GUARDED)
    ports = (ServicePort("web", Protocol.TCP, 80),)
    cluster.set_service(service(cluster_ips=(SERVERS[0], IPS[1]), ports=ports))
    assert frontends(cluster) == {"[fd00:96::1]:80"}
    assert len(cluster.problems(WEB)) == 1


def test_a_node_port_that_the_node_needs() -> None:
    cluster = Cluster(GUARDED)
    cluster.set_service(service(ports=(ServicePort("x", Protocol.TCP, 80, 30256),)))
    assert frontends(cluster) == {"10.96.0.1:80"}
    assert "ebpf-lb's health checks" in cluster.problems(WEB)[0]
    cluster.set_service(service(ports=(ServicePort("x", Protocol.UDP, 80, 30256),)))
    assert cluster.problems(WEB) == []


def test_the_api_servers_own_service_is_served() -> None:
    """Also where the agent was told to go by its ClusterIP; but not at other addresses."""
    by_cluster_ip = Reserved(IPS[0], 443, Protocol.TCP, API_SERVER)
    cluster = Cluster(replace(GUARDED, reserved=GUARDED.reserved | {by_cluster_ip}))
    ports = (ServicePort("https", Protocol.TCP, 443),)
    own = service(KUBERNETES, cluster_ips=IPS, ports=ports)
    cluster.set_service(own)
    assert frontends(cluster, KUBERNETES) == both_ips(443)
    assert cluster.problems(KUBERNETES) == []
    assert cluster.reserved_addresses == set(SERVERS)
    cluster.delete_service(KUBERNETES)
    assert cluster.reserved_addresses == {*SERVERS, IPS[0]}
    ports = (ServicePort("https", Protocol.TCP, 6443),)
    cluster.set_service(replace(own, external_ips=SERVERS, ports=ports))
    assert frontends(cluster, KUBERNETES) == both_ips(6443)
    assert len(cluster.problems(KUBERNETES)) == 2


def hostile(name: str, **fields: object) -> Service:
    ip = bytes([10, 96, 1, len(name)])
    return service(ObjectKey("a", name), **{"cluster_ips": (ip,), "ports": TWO, **fields})


def test_the_server_moves() -> None:
    """Only those are planned again that want the one address or the other."""
    cluster = Cluster(replace(NODE, reserved=frozenset()))
    at_once = [
        hostile("external", external_ips=SERVERS),
        hostile("balanced", load_balancer=(LoadBalancerIngress(SERVERS[0]),)),
        hostile("clusterip", cluster_ips=SERVERS[:1]),
        hostile("nodeport", ports=(ServicePort("x", Protocol.TCP, 80, 30256),)),
        hostile("none", external_ips=addresses("203.0.113.9")),
    ]
    cluster.replace_services(at_once)
    cluster.take_changes()
    for node in (GUARDED, NODE):
        cluster.set_node(node)
        marked = [key.name for key in cluster.take_changes()]
        assert sorted(marked) == ["balanced", "clusterip", "external", "nodeport"]
    assert "192.168.0.250:6443" in frontends(cluster, at_once[2].key)  # a ClusterIP goes first
    cluster.set_node(GUARDED)
    assert not any(
        f"{format_endpoint(server, 6443)}" in frontends(cluster, one.key)
        for server in SERVERS
        for one in at_once
    )


def test_what_is_refused_leaves_no_room_to_anybody() -> None:
    """Neither does the next one get it."""
    cluster = Cluster(GUARDED)
    for name in ("a", "bb"):
        cluster.set_service(hostile(name, external_ips=(address("192.168.0.250"),)))
    for name in ("a", "bb"):
        assert "192.168.0.250:6443" not in frontends(cluster, ObjectKey("a", name))

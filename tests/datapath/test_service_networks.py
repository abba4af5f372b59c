"""Addresses of a ServiceCIDR that no Service has, by packets."""

import pytest

from ebpf_lb.datapath.dump import dump
from ebpf_lb.datapath.reader import View
from ebpf_lb.model.values import Family, parse_network
from ebpf_lb.plan.forwarding import FrontendKind
from tests.datapath.kernel import Kernel
from tests.support.packets import ICMP, ICMPV6, SCTP, TCP, UDP, Packet

NETWORKS = {
    Family.IPV4: ["10.96.0.0/12", "172.20.4.0/23"],
    Family.IPV6: ["fd00:10:96::/108", "fd00:20::4:0/111"],
}
INSIDE = {
    Family.IPV4: ["10.96.0.0", "10.111.255.255", "172.20.5.255", "172.20.4.1"],
    Family.IPV6: ["fd00:10:96::", "fd00:10:96::f:ffff", "fd00:20::5:ffff", "fd00:20::4:1"],
}
BESIDE = {
    Family.IPV4: ["10.95.255.255", "10.112.0.0", "172.20.3.255", "172.20.6.0", "0.0.0.1"],
    Family.IPV6: ["fd00:10:95::ffff:1", "fd00:10:96::10:0", "fd00:20::3:ffff", "::1"],
}
CLIENT = {Family.IPV4: "10.244.1.2", Family.IPV6: "fd00:10:244:1::2"}
BACKEND = {Family.IPV4: "10.244.1.7", Family.IPV6: "fd00:10:244:1::7"}
HOOKS = ["pod_ingress", "pod_egress", "uplink_ingress", "uplink_egress"]


@pytest.fixture
def cidrs(kernel: Kernel) -> Kernel:
    kernel.writer.set_service_networks(map(parse_network, NETWORKS[kernel.family]))
    yield kernel
    kernel.writer.set_service_networks([])


def packet(kernel: Kernel, destination: str, protocol: int = TCP) -> Packet:
    if protocol in (ICMP, ICMPV6):  # an echo request
        kind = 8 if protocol == ICMP else 128
        payload = bytes([kind, 0, 0, 0, 0, 1, 0, 1])
        return Packet(CLIENT[kernel.family], destination, 0, 0, protocol, payload=payload)
    return Packet(CLIENT[kernel.family], destination, 40000, 80, protocol, payload=b"x" * 20)


@pytest.mark.rule("VE-8")
@pytest.mark.parametrize("protocol", [TCP, UDP, SCTP, ICMP], ids=["tcp", "udp", "sctp", "icmp"])
def test_dropped_where_it_leaves_the_node(cidrs: Kernel, protocol: int) -> None:
    if protocol == ICMP and cidrs.family is Family.IPV6:
        protocol = ICMPV6
    for number, address in enumerate(INSIDE[cidrs.family], 1):
        assert cidrs.run("uplink_egress", packet(cidrs, address, protocol)).dropped
        assert cidrs.count("NO_SERVICE") == number
    for address in BESIDE[cidrs.family]:
        sent = packet(cidrs, address, protocol)
        result = cidrs.run("uplink_egress", sent)
        assert result.passed and result.frame == sent.frame()


@pytest.mark.rule("VE-8")
def test_left_alone_everywhere_else(cidrs: Kernel) -> None:
    """Whoever serves such an address besides us must see the packet."""
    for hook in HOOKS[:-1]:
        sent = packet(cidrs, INSIDE[cidrs.family][1])
        result = cidrs.run(hook, sent)
        assert result.passed and result.frame == sent.frame()


def test_nothing_is_dropped_where_no_network_is_known(kernel: Kernel) -> None:
    for address in (*INSIDE[kernel.family], *BESIDE[kernel.family]):
        assert kernel.run("uplink_egress", packet(kernel, address)).passed


def test_a_service_has_its_address_and_loses_it(cidrs: Kernel) -> None:
    vip = INSIDE[cidrs.family][3]
    name = cidrs.service(vip, 80, [(BACKEND[cidrs.family], 80)])
    assert cidrs.run("pod_ingress", packet(cidrs, vip)).packet.destination == BACKEND[cidrs.family]
    cidrs.run("uplink_egress", packet(cidrs, vip).but(source_port=40001))
    assert cidrs.count("NO_SERVICE") == 0
    cidrs.writer.delete(name)
    # its bit in the filter stays
    gone = packet(cidrs, vip).but(source_port=40002)
    assert cidrs.run("pod_ingress", gone).passed
    assert cidrs.run("uplink_egress", gone).dropped
    assert cidrs.count("NO_SERVICE") == 1


def test_a_reply_to_such_an_address_is_no_new_connection(cidrs: Kernel) -> None:
    """A client outside uses such an address; odd, but the connection stands (kube-proxy, too)."""
    client, vip = INSIDE[cidrs.family][1], BESIDE[cidrs.family][1]
    local = [(BACKEND[cidrs.family], 80)]
    cidrs.service(vip, 80, local, local=local, kind=FrontendKind.EXTERNAL_IP)
    there = cidrs.run("uplink_ingress", packet(cidrs, vip).but(source=client))
    assert there.packet.destination == BACKEND[cidrs.family]
    back = cidrs.run("uplink_egress", there.packet.reply())
    assert back.passed and back.packet.source == vip


def test_there_is_room_for_four(kernel: Kernel) -> None:
    texts = ["10.1.0.0/24", "10.2.0.0/24", "10.3.0.0/24", "10.4.0.0/24", "10.5.0.0/24"]
    if kernel.family is Family.IPV6:
        texts = [f"fd00:{number}::/112" for number in range(1, 6)]
    networks = [parse_network(text) for text in texts]
    assert kernel.writer.set_service_networks(networks) == (networks[4],)
    rows = dump(View(kernel.build, kernel.family), "service_networks")
    assert [row["network"] for row in rows] == texts[:4]
    assert kernel.writer.set_service_networks([]) == ()
    assert dump(View(kernel.build, kernel.family), "service_networks") == []

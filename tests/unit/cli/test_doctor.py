"""What a node's files tell, on nodes made of files."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from ebpf_lb.cli.doctor import node
from ebpf_lb.cli.doctor.finding import Finding, Sign
from ebpf_lb.cli.doctor.node import Host

Check = Callable[[Host], Iterator[Finding]]

WELL = {
    "/proc/sys/net/core/bpf_jit_enable": "1",
    "/proc/self/status": "Name:\tx\nCapEff:\t000001ffffffffff\n",
    "/proc/sys/net/ipv4/ip_forward": "1",
    "/proc/sys/net/ipv6/conf/all/forwarding": "1",
    "/proc/sys/net/ipv4/conf/all/rp_filter": "0",
    "/proc/sys/net/ipv4/conf/eth0/rp_filter": "2",
    "/proc/sys/net/ipv4/conf/all/route_localnet": "0",
    "/proc/sys/net/netfilter/nf_conntrack_count": "100",
    "/proc/sys/net/netfilter/nf_conntrack_max": "1000",
    "/etc/cni/net.d/10.conflist": '{"plugins": [{"type": "bridge"}, {"type": "portmap"}]}',
    "/proc/1/comm": "systemd",
    "/sys/class/net/eth0/ifindex": "2",
}


def host(folder: Path, changes: dict[str, str | None]) -> Host:
    for path, text in (WELL | changes).items():
        if text is not None:
            file = folder / path.lstrip("/")
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(text)
    return Host(folder)


def test_nothing_is_wrong_with_a_node_that_is_fit(tmp_path: Path) -> None:
    made = host(tmp_path, {})
    found = [one for check in node.CHECKS for one in check(made)]
    assert {one.sign for one in found} == {Sign.GOOD}, found
    assert len(found) == len(node.CHECKS) + 1  # forwarding of both families
    assert "pods' networks are made by bridge, portmap" in [one.sentence for one in found]


@pytest.mark.parametrize(
    ("check", "changes", "sign", "says", "remedy"),
    [
        (node.jit, {"/proc/sys/net/core/bpf_jit_enable": "0"}, Sign.BAD, "interprets", "=1"),
        (
            node.capabilities,
            {"/proc/self/status": "CapEff:\t0000000000001000\n"},
            Sign.BAD,
            "lacks PERFMON, BPF",
            "root",
        ),
        (
            node.forwarding,
            {"/proc/sys/net/ipv4/ip_forward": "0"},
            Sign.BAD,
            "does not forward IPv4",
            "net.ipv4.ip_forward=1",
        ),
        (
            node.reverse_path,
            {"/proc/sys/net/ipv4/conf/eth0/rp_filter": "1"},
            Sign.REMARK,
            "strict on eth0",
            "rp_filter=2",
        ),
        (
            node.route_localnet,
            {"/proc/sys/net/ipv4/conf/all/route_localnet": "1"},
            Sign.REMARK,
            "routed on all",
            "route_localnet=0",
        ),
        (
            node.conntrack,
            {"/proc/sys/net/netfilter/nf_conntrack_count": "900"},
            Sign.BAD,
            "900 of 1,000",
            "nf_conntrack_max",
        ),
        (node.cni, {"/etc/cni/net.d/10.conflist": None}, Sign.REMARK, "no CNI", ""),
        (
            node.others,
            {"/proc/77/comm": "kube-proxy"},
            Sign.REMARK,
            "kube-proxy runs here",
            "--cleanup",
        ),
        (
            node.others,
            {"/sys/class/net/kube-ipvs0/ifindex": "9", "/sys/class/net/cilium_host/ifindex": "8"},
            Sign.REMARK,
            "kube-ipvs0 (kube-proxy in mode ipvs); the interfaces cilium_host",
            "restart",
        ),
        (
            node.others,
            {"/proc/net/ip_vs": "IP Virtual Server\nProt\n  ->\nTCP 0A600001:0050 rr"},
            Sign.REMARK,
            "services in IPVS",
            "--cleanup",
        ),
    ],
)
def test_what_is_wrong_is_told_with_its_remedy(
    tmp_path: Path,
    check: Check,
    changes: dict[str, str | None],
    sign: Sign,
    says: str,
    remedy: str,
) -> None:
    found = [one for one in check(host(tmp_path, changes)) if one.sign is not Sign.GOOD]
    assert [one.sign for one in found] == [sign]
    assert says in found[0].sentence and remedy in found[0].remedy


def test_a_node_without_such_files_is_no_traceback(tmp_path: Path) -> None:
    for check in node.CHECKS:
        list(check(Host(tmp_path)))

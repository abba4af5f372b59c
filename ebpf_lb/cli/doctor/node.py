"""What the kernel's files say of a node: /proc, /sys and a CNI's configuration."""

import json
import re
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from ebpf_lb.cli.doctor.finding import Finding, bad, good, remark

_NEARLY_FULL = 0.8
_CAPABILITIES = {"NET_ADMIN": 12, "PERFMON": 38, "BPF": 39}
_STRICT = "1"


class Host:
    """`root`: where the file system begins; for tests another folder."""

    def __init__(self, root: Path = Path("/")) -> None:
        self.root = root

    def read(self, path: str) -> str:
        """A file's content, without white space around it; "" if there is none."""
        try:
            return (self.root / path.lstrip("/")).read_text(errors="replace").strip()
        except OSError:
            return ""

    def glob(self, pattern: str) -> list[Path]:
        return sorted(self.root.glob(pattern.lstrip("/")))

    def sysctl(self, name: str) -> str:
        return self.read(f"/proc/sys/{name.replace('.', '/')}")

    def processes(self) -> set[str]:
        """The names of all that run here."""
        found = set()
        for path in self.glob("/proc/[0-9]*/comm"):
            with suppress(OSError):
                found.add(path.read_text().strip())
        return found


def forwarding(host: Host) -> Iterator[Finding]:
    for name, family in (
        ("net.ipv4.ip_forward", "IPv4"),
        ("net.ipv6.conf.all.forwarding", "IPv6"),
    ):
        value = host.sysctl(name)
        if value == "1":
            yield good("forwarding", f"the node forwards {family}")
        elif value:
            yield bad(
                "forwarding",
                f"the node does not forward {family}: nothing gets from outside to a pod",
                f"sysctl -w {name}=1, and the same in /etc/sysctl.d",
            )


def reverse_path(host: Host) -> Iterator[Finding]:
    strict = [
        path.parent.name
        for path in host.glob("/proc/sys/net/ipv4/conf/*/rp_filter")
        if path.read_text().strip() == _STRICT
    ]
    if strict:
        yield remark(
            "rp_filter",
            f"the reverse-path filter is strict on {_few(strict)}: what comes in by another "
            "interface than its answer leaves by is dropped",
            "on nodes with several ways out: sysctl -w net.ipv4.conf.all.rp_filter=2",
        )
    else:
        yield good("rp_filter", "no reverse-path filter is strict")


def route_localnet(host: Host) -> Iterator[Finding]:
    on = [
        path.parent.name
        for path in host.glob("/proc/sys/net/ipv4/conf/*/route_localnet")
        if path.read_text().strip() == "1"
    ]
    if on:
        yield remark(
            "route_localnet",
            f"packets to 127.0.0.0/8 are routed on {_few(on)}, so that neighbours may reach what "
            "listens on localhost alone: kube-proxy wanted that for NodePorts, ebpf-lb does not",
            "when kube-proxy is gone: sysctl -w net.ipv4.conf.all.route_localnet=0",
        )
    else:
        yield good("route_localnet", "nothing routes packets to 127.0.0.0/8")


def conntrack(host: Host) -> Iterator[Finding]:
    folder = "/proc/sys/net/netfilter"
    with suppress(ValueError):
        used = int(host.read(f"{folder}/nf_conntrack_count"))
        room = int(host.read(f"{folder}/nf_conntrack_max"))
        text = f"the kernel's connection tracking has {used:,} of {room:,} entries"
        if room and used >= room * _NEARLY_FULL:
            yield bad(
                "conntrack",
                f"{text}: when it is full, new connections are dropped",
                "raise net.netfilter.nf_conntrack_max, or conntrackMaxPerCore in the configuration",
            )
        else:
            yield good("conntrack", text)


def jit(host: Host) -> Iterator[Finding]:
    if host.sysctl("net.core.bpf_jit_enable") == "0":
        yield bad(
            "jit",
            "the kernel interprets programs instead of compiling them: several times slower",
            "sysctl -w net.core.bpf_jit_enable=1",
        )
    else:
        yield good("jit", "the kernel compiles programs")


def capabilities(host: Host) -> Iterator[Finding]:
    match = re.search(r"^CapEff:\s*([0-9a-f]+)", host.read("/proc/self/status"), re.MULTILINE)
    held = int(match[1], 16) if match else 0
    missing = [name for name, bit in _CAPABILITIES.items() if not held >> bit & 1]
    if missing:
        yield bad(
            "capabilities",
            f"this process lacks {', '.join(missing)}",
            "run as root, or give the container these capabilities",
        )
    else:
        yield good("capabilities", f"this process has {', '.join(_CAPABILITIES)}")


def cni(host: Host) -> Iterator[Finding]:
    kinds: dict[str, None] = {}
    for path in host.glob("/etc/cni/net.d/*.conf*"):
        with suppress(OSError, ValueError, AttributeError):
            content = json.loads(path.read_text())
            for plugin in content.get("plugins") or [content]:
                kinds[str(plugin.get("type"))] = None
    if kinds:
        yield good("cni", f"pods' networks are made by {', '.join(kinds)}")
    else:
        yield remark("cni", "no CNI is configured in /etc/cni/net.d: there are no pods yet")


def others(host: Host) -> Iterator[Finding]:
    """Who else takes Services here."""
    running = host.processes()
    state = [name for name in ("kube-proxy", "cilium-agent", "kube-router") if name in running]
    if state:
        yield remark(
            "others",
            f"{', '.join(state)} runs here: both serve, and what it has translated stays its",
            "when ebpf-lb is ready, take it off and remove its rules (kube-proxy --cleanup)",
        )
    left = list(_leftovers(host))
    if left:
        yield remark(
            "leftovers",
            f"others left {'; '.join(left)}",
            "" if state else "kube-proxy --cleanup, cilium-dbg post-uninstall-cleanup, or restart",
        )
    if not state and not left:
        yield good("others", "nobody else takes Services here")


def _leftovers(host: Host) -> Iterator[str]:
    links = {path.name for path in host.glob("/sys/class/net/*")}
    if "kube-ipvs0" in links:
        yield "the interface kube-ipvs0 (kube-proxy in mode ipvs)"
    if len(host.read("/proc/net/ip_vs").splitlines()) > 3:
        yield "services in IPVS"
    cilium = sorted(links & {"cilium_host", "cilium_net", "cilium_vxlan"})
    if cilium:
        yield f"the interfaces {', '.join(cilium)}"
    if host.glob("/sys/fs/bpf/tc/globals/cilium_*") or host.glob("/sys/fs/bpf/cilium"):
        yield "Cilium's pins in /sys/fs/bpf"


def _few(names: list[str]) -> str:
    shown = names[:3]
    return ", ".join(shown) + (f" and {len(names) - 3} more" if len(names) > 3 else "")


CHECKS = (
    jit,
    capabilities,
    forwarding,
    reverse_path,
    route_localnet,
    conntrack,
    cni,
    others,
)

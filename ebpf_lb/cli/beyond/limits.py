"""The kernel's own connection tracking: whether there is room for another connection."""

from collections.abc import Iterator
from pathlib import Path

from ebpf_lb.cli.beyond.finding import Finding

_FULL = 0.95


def about_conntrack(folder: Path = Path("/proc/sys/net/netfilter")) -> Iterator[Finding]:
    try:
        used = int((folder / "nf_conntrack_count").read_text())
        room = int((folder / "nf_conntrack_max").read_text())
    except (OSError, ValueError):
        return
    if room and used >= room * _FULL:
        yield Finding(
            f"The kernel's connection tracking is full ({used:,} of {room:,}): new connections are "
            "dropped. Raise net.netfilter.nf_conntrack_max.",
            True,
        )

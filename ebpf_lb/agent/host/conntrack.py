"""The kernel's own connection tracking, set up as kube-proxy sets it up.

Our programs do not look at it, but connections still pass through it on their way (the CNI's
masquerading needs it), and with kube-proxy gone nobody else would give it the size and the
time-outs that nodes are used to. Values are only ever raised, as by kube-proxy
(cmd/kube-proxy/app/conntrack.go).
"""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

_SYSCTLS = Path("/proc/sys/net/netfilter")
_HASH_SIZE = Path("/sys/module/nf_conntrack/parameters/hashsize")
_ENTRIES_A_BUCKET = 4


@dataclass(frozen=True, slots=True)
class Conntrack:
    """What is asked for; 0 leaves the kernel's own value.

    max_per_core, min: the table's entries are so many a processor, and no fewer than `min`.
    tcp_established_s: an idle connection is forgotten after that long.
    tcp_close_wait_s: the same, where the other side has closed its half.
    """

    max_per_core: int
    min: int
    tcp_established_s: int
    tcp_close_wait_s: int

    @property
    def entries(self) -> int:
        if not self.max_per_core:
            return 0
        return max(self.max_per_core * (os.cpu_count() or 1), self.min)


def raise_limits(
    wanted: Conntrack, sysctls: Path = _SYSCTLS, hash_size: Path = _HASH_SIZE
) -> list[str]:
    """Sets what is lower than wanted, in this network namespace; what could not be set, in words.

    Nothing is done where the kernel tracks no connections. The table's size belongs to the machine:
    in a namespace of its own a node cannot change it, and that is not a fault.
    """
    return [
        f"{file} stays at {now}, {value} is wanted: {error.strerror}"
        for file, value, now, error in _attempts(wanted, sysctls, hash_size)
    ]


def _attempts(
    wanted: Conntrack, sysctls: Path, hash_size: Path
) -> Iterator[tuple[Path, int, int, OSError]]:
    for file, value in (
        (sysctls / "nf_conntrack_max", wanted.entries),
        (hash_size, wanted.entries // _ENTRIES_A_BUCKET),
        (sysctls / "nf_conntrack_tcp_timeout_established", wanted.tcp_established_s),
        (sysctls / "nf_conntrack_tcp_timeout_close_wait", wanted.tcp_close_wait_s),
    ):
        try:
            now = int(file.read_text())
        except (OSError, ValueError):
            continue
        if now >= value:
            continue
        try:
            file.write_text(f"{value}\n")
        except OSError as error:
            yield file, value, now, error

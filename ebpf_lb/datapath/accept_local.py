"""Loopback takes IPv4 packets from addresses of the node's own: `net.ipv4.conf.lo.accept_local`.

The stack never asks where a packet on loopback comes from: it found the route when it sent it. What
we hand to loopback (bpf/path/way.h) comes without one: an answer of a frontend that is an address
of the node's own, to a socket of the node's own. On any interface such a packet is taken for forged
(fib_validate_source in the kernel), unless that accepts local sources. On loopback this opens
nothing: whatever arrives there was sent by the node itself. IPv6 knows no such check.

What the setting was before is kept in bpffs, which lives as long as the setting does.
"""

from contextlib import suppress
from pathlib import Path

from ebpf_lb.datapath.pins import Pins

SETTING = Path("/proc/sys/net/ipv4/conf/lo/accept_local")


def accept_local(pins: Pins, setting: Path = SETTING) -> None:
    """Switches it on in this network namespace. OSError if that is not possible."""
    before = setting.read_text().strip()
    if before == "1":
        return
    with suppress(FileExistsError):
        pins.accept_local.symlink_to(before)
    setting.write_text("1\n")


def restore(pins: Pins, setting: Path = SETTING) -> None:
    """Makes it what it was before us, if we changed it."""
    try:
        before = pins.accept_local.readlink()
    except FileNotFoundError:
        return
    setting.write_text(f"{before}\n")
    pins.accept_local.unlink()

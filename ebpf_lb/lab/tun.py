"""Tun devices: interfaces without an Ethernet header, whose wire is a file descriptor."""

import fcntl
import os
import struct
from pathlib import Path

DEVICE = Path("/dev/net/tun")
_TUNSETIFF = 0x400454CA  # linux/if_tun.h
_IFF_TUN, _IFF_NO_PI = 0x0001, 0x1000


def open_tun(name: str) -> int:
    """Makes a tun device of that name in this thread's network namespace, down at first.

    What its network sends is read from the descriptor, one IP packet a read; what is written there
    has come in by the device, which goes with the descriptor. OSError: it cannot be made.
    """
    descriptor = os.open(DEVICE, os.O_RDWR | os.O_CLOEXEC)
    try:
        fcntl.ioctl(
            descriptor, _TUNSETIFF, struct.pack("16sH22x", name.encode(), _IFF_TUN | _IFF_NO_PI)
        )
    except OSError:
        os.close(descriptor)
        raise
    return descriptor

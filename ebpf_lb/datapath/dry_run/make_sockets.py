"""Run as a program of its own, with the standard library alone: makes sockets in a network
namespace and a cgroup where nobody else is, and hands them over.

What a socket is made in it stays in, whoever has it. Arguments: the cgroup, the cgroup to go back
to at the end, the descriptor of the socket by which others ask for them.
"""

import ctypes
import os
import signal
import socket
import struct
import sys
from contextlib import suppress
from pathlib import Path

REQUEST = struct.Struct("=ii")  # address family, kind
_CLONE_NEWNET = 0x40000000


def main(group: Path, back: Path, descriptor: int) -> None:
    for one in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        # of a terminal, say: the end is when the customer has gone, and then there is to clean up
        signal.signal(one, signal.SIG_IGN)
    with socket.socket(fileno=descriptor) as customer:
        try:
            _join(group)
            libc = ctypes.CDLL(None, use_errno=True)
            if libc.unshare(_CLONE_NEWNET):
                number = ctypes.get_errno()
                raise OSError(number, f"a network namespace: {os.strerror(number)}")
            _serve(customer)
        except OSError as error:
            customer.send(str(error).encode())
        finally:
            with suppress(OSError):  # else whoever started us removes it
                _join(back)
                group.rmdir()


def _join(group: Path) -> None:
    """Unbuffered, so that the kernel's refusal is ours to hear."""
    descriptor = os.open(group / "cgroup.procs", os.O_WRONLY)
    try:
        os.write(descriptor, b"0")
    finally:
        os.close(descriptor)


def _serve(customer: socket.socket) -> None:
    """Two for each request, until there are no more."""
    while request := customer.recv(REQUEST.size):
        made = [socket.socket(*REQUEST.unpack(request)) for _ in range(2)]
        socket.send_fds(customer, [b"2"], [one.fileno() for one in made])
        for one in made:
            one.close()


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]))

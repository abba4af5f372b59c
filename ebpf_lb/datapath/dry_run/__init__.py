"""What the node's own programs make of a packet that is not sent, and that changes nothing.

`sandbox`: the programs, once more in the kernel, on the live maps that they only read and on copies
of those that they write; `packet`: what they are run on; `at_socket`: those at the node's own
sockets, which are run by sockets of nobody (`private_sockets`, `make_sockets`); `journey`: from
hook to hook, there and back.
"""

from ebpf_lb.datapath.dry_run.journey import (
    Hop,
    Journey,
    NoPrograms,
    Place,
    Socket,
    travel,
    travel_from_socket,
)
from ebpf_lb.datapath.dry_run.sandbox import Sandbox, Unavailable

__all__ = [
    "Hop",
    "Journey",
    "NoPrograms",
    "Place",
    "Sandbox",
    "Socket",
    "Unavailable",
    "travel",
    "travel_from_socket",
]

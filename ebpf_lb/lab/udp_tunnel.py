"""A node's end of the overlay of `--network udp`, as flannel's UDP backend makes it: a tun device,
so packets without an Ethernet header, and a process that carries them in datagrams to other nodes.

`python -m ebpf_lb.lab.udp_tunnel LAB NODE`, in the node's network namespace; it serves until it is
ended. The device is there already, with addresses and routes (topology.py).
"""

import os
import select
import socket
import sys
from collections.abc import Mapping

from ebpf_lb.lab.links import Address
from ebpf_lb.lab.names import LabNames, NodeNames
from ebpf_lb.lab.state import State
from ebpf_lb.lab.tun import open_tun

DEVICE = "flannel0"
PORT = 8285
OVERHEAD = {4: 28, 6: 48}
"""Bytes of the outer headers by IP version."""

_BUFFER_BYTES = 4 << 20
_PACKET_BYTES = 65536
_AT_ONCE = 64
# where a packet's destination stands, and how much of it is the network of a node's pods
_NETWORK = {4: slice(16, 19), 6: slice(24, 32)}


def outer(node: NodeNames) -> Address:
    """The address by which other nodes reach the process, whatever family the packets are of."""
    return node.interfaces[0].ip


def ways(others: list[NodeNames]) -> dict[bytes, tuple[str, int]]:
    """By the first bytes of pods' addresses: where their node is."""
    found = {}
    for node in others:
        for network in node.pod_segment.networks(node.families):
            prefix = network.network_address.packed[: network.prefixlen // 8]
            found[prefix] = (str(outer(node)), PORT)
    return found


def carry(tun: int, wire: socket.socket, by_network: Mapping[bytes, tuple[str, int]]) -> None:
    """For ever. What is for no node is dropped, and so is what comes from none."""
    known = set(by_network.values())
    os.set_blocking(tun, False)
    wire.setblocking(False)
    both: list[int | socket.socket] = [tun, wire]
    while True:
        ready, _, _ = select.select(both, [], [])
        if tun in ready:
            _send(tun, wire, by_network)
        if wire in ready:
            _receive(tun, wire, known)


def _send(tun: int, wire: socket.socket, by_network: Mapping[bytes, tuple[str, int]]) -> None:
    for _ in range(_AT_ONCE):
        try:
            packet = os.read(tun, _PACKET_BYTES)
            there = by_network.get(packet[_NETWORK[packet[0] >> 4]])
            if there is not None:
                wire.sendto(packet, there)
        except BlockingIOError:
            return


def _receive(tun: int, wire: socket.socket, known: set[tuple[str, int]]) -> None:
    for _ in range(_AT_ONCE):
        try:
            packet, sender = wire.recvfrom(_PACKET_BYTES)
            if sender[:2] in known and packet:
                os.write(tun, packet)
        except BlockingIOError:
            return


def main() -> None:
    lab, name = sys.argv[1:]
    names = LabNames(lab)
    nodes = names.nodes(State.load(names).options)
    [node] = [one for one in nodes if one.name == name]
    here = outer(node)
    tun = open_tun(DEVICE)
    family = socket.AF_INET if here.version == 4 else socket.AF_INET6
    with socket.socket(family, socket.SOCK_DGRAM) as wire:
        wire.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _BUFFER_BYTES)
        wire.bind((str(here), PORT))
        carry(tun, wire, ways([one for one in nodes if one != node]))


if __name__ == "__main__":
    main()

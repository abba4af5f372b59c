"""What the programs know of the node: interfaces, source addresses, networks, its own sockets."""

import socket
from collections.abc import Iterator
from typing import NamedTuple

from ebpf_lb.datapath.reader.flows import entries
from ebpf_lb.datapath.reader.view import View, protocol_name


class Interface(NamedTuple):
    """Names are None where there is no such interface in this network namespace."""

    ifindex: int
    name: str | None
    bridge: int
    bridge_name: str | None
    source: bytes | None


class Source(NamedTuple):
    """An address of the node that may become a packet's source."""

    id: int
    address: bytes


class Way(NamedTuple):
    """How the packets of a flow leave that do not take the stack."""

    set: int
    slot: int
    ifindex: int
    destination_mac: bytes
    source_mac: bytes


class SocketEntry(NamedTuple):
    """`kind`: HEARS (answers of the backend come from the frontend) or ASKS (datagrams to the
    frontend go to the backend)."""

    cookie: int
    kind: str
    frontend: bytes
    frontend_port: int
    backend: bytes
    backend_port: int
    service_id: int
    service: str | None
    age_s: float | None


class Fragment(NamedTuple):
    """A datagram whose later fragments follow its first one."""

    source: bytes
    destination: bytes
    id: int
    protocol: str
    source_port: int
    destination_port: int
    new_id: int


def interfaces(view: View) -> Iterator[Interface]:
    for ifindex, value in sorted(view.rows("interfaces")):
        yield Interface(
            ifindex,
            interface_name(ifindex),
            value.bridge,
            interface_name(value.bridge) if value.bridge else None,
            source(view, value.source_id),
        )


def interface_name(ifindex: int) -> str | None:
    """None if it has gone, or is in another network namespace."""
    try:
        return socket.if_indextoname(ifindex)
    except OSError:
        return None


def source(view: View, number: int) -> bytes | None:
    """The address of a number in `snat_sources`; None for 0."""
    value = view.element("snat_sources", number) if number else None
    return None if value is None else bytes(value.address)


def sources(view: View) -> Iterator[Source]:
    """Those numbers that stand for an address."""
    for number, value in view.rows("snat_sources"):
        if any(value.address):
            yield Source(number, value.address)


def ways(view: View) -> Iterator[Way]:
    mask = view.layout.defines["SEND_IFINDEX"]
    for entry in entries(view):
        found = view.element("ways", entry.set)
        way = found.entry[entry.slot] if found else None
        if way and way.ifindex & mask:
            yield Way(
                entry.set, entry.slot, way.ifindex & mask, way.destination_mac, way.source_mac
            )


def socket_entries(view: View) -> Iterator[SocketEntry]:
    kinds = {number: name for name, number in view.short("socket_entry").items()}
    for key, value in sorted(view.rows("sockets")):
        kind = kinds.get(key.entry, str(key.entry))
        frontend, backend = (key, value) if kind == "ASKS" else (value, key)
        yield SocketEntry(
            key.cookie,
            kind,
            frontend.address,
            frontend.port,
            backend.address,
            backend.port,
            value.service_id,
            view.service(value.service_id),
            view.age_s(value.last_used, 32),
        )


def fragments(view: View) -> Iterator[Fragment]:
    for key, value in sorted(view.rows("fragments")):
        yield Fragment(
            key.source,
            key.destination,
            key.id,
            protocol_name(key.protocol),
            value.source_port,
            value.destination_port,
            value.new_id,
        )


def pod_networks(view: View) -> list[tuple[bytes, int]]:
    """Addresses and prefix lengths."""
    rows = view.rows("pod_networks")
    return sorted((bytes(key.address), int(key.prefix_length)) for key, _ in rows)


def service_networks(view: View) -> list[tuple[bytes, int]]:
    """The cluster's ServiceCIDRs: addresses and prefix lengths."""
    value = view.element("service_networks", 0)
    return [
        (bytes(one.prefix), int.from_bytes(one.mask).bit_count())
        for one in (value.entry if value else ())
        if any(one.mask)
    ]

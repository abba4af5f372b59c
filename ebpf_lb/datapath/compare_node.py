"""What one family's maps hold of the node itself, against what is planned, by reading alone:
interfaces, addresses to masquerade with, the cluster's networks, settings and constants.
"""

import struct
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import NamedTuple

from ebpf_lb.datapath.crc32c import shift_columns
from ebpf_lb.datapath.reader import View, node
from ebpf_lb.datapath.writer import NODE_SOURCE_ID
from ebpf_lb.model.values import Network, format_address

_INDEX = struct.Struct("=I")
_NO_MAC = bytes(6)


class WantedInterface(NamedTuple):
    """`source`: the address that masquerades what leaves there, if it has one of this family."""

    name: str
    bridge: int
    source: bytes | None
    mac: bytes
    peer: bool


@dataclass(frozen=True, slots=True)
class WantedNode:
    """Of one family. `interfaces`: by ifindex. `primary`: the node's own address, if there is one.
    `pod_networks`: None where nobody knows them yet."""

    interfaces: Mapping[int, WantedInterface]
    primary: bytes | None
    pod_networks: frozenset[Network] | None
    service_networks: tuple[Network, ...]
    netns_cookie: int
    masquerade_all: bool
    reject_per_second: int


def differences(view: View, wanted: WantedNode) -> Iterator[str]:
    """Sentences without their full stop."""
    yield from _interfaces(view, wanted.interfaces)
    held = node.source(view, NODE_SOURCE_ID)
    own = held if held and any(held) else None
    if own != wanted.primary:
        yield f"the node's own address is {_text(own)}, and should be {_text(wanted.primary)}"
    if wanted.pod_networks is not None:
        there = node.pod_networks(view)
        yield from _networks("pod network", there, wanted.pod_networks)
    yield from _networks("ServiceCIDR", node.service_networks(view), wanted.service_networks)
    yield from _settings(view, wanted)
    pack = view.layout.struct("crc32c_shift").pack
    shifts = view.map("crc32c_shifts")
    if shifts is None or any(
        shifts.lookup(_INDEX.pack(exponent)) != pack(column=shift_columns(exponent))
        for exponent in range(shifts.max_entries)
    ):
        yield "the constants for SCTP's checksum are not as they should be"


def _interfaces(view: View, wanted: Mapping[int, WantedInterface]) -> Iterator[str]:
    peer = view.layout.enum("interface_flag")["INTERFACE_PEER"]
    held = dict(view.rows("interfaces"))
    for index, one in sorted(wanted.items()):
        value = held.get(index)
        if value is None:
            yield f"{one.name}: it has no entry among the interfaces"
            continue
        found = node.source(view, value.source_id) if value.source_id else None
        for what, there, should in (
            ("bridge", value.bridge, one.bridge),
            ("address to masquerade with", found, one.source),
            ("MAC address", bytes(value.mac), one.mac or _NO_MAC),
            ("way to its peer", bool(value.flags & peer), one.peer),
        ):
            if there != should:
                yield f"{one.name}: its entry has another {what} than it should"
    for index in sorted(held.keys() - wanted.keys()):
        yield f"the interface with index {index} has an entry, and nobody asks for it"


def _networks(
    kind: str, held: Iterable[tuple[bytes, int]], wanted: Iterable[Network]
) -> Iterator[str]:
    there = {Network(address, length) for address, length in held}
    for network in sorted(set(wanted) - there):
        yield f"the {kind} {network} is missing"
    for network in sorted(there - set(wanted)):
        yield f"the {kind} {network} is in the maps, and nobody asks for it"


def _settings(view: View, wanted: WantedNode) -> Iterator[str]:
    flags, value = view.layout.enum("config_flag"), view.element("config", 0)
    known = flags["CONFIG_POD_NETWORKS_KNOWN"]
    if value is None:
        yield "the settings are missing"
        return
    for what, there, should in (
        ("the node's network namespace", value.node_netns_cookie, wanted.netns_cookie),
        (
            "masqueradeAll",
            bool(value.flags & flags["CONFIG_MASQUERADE_ALL"]),
            wanted.masquerade_all,
        ),
        ("the limit of refusals", value.reject_per_second, wanted.reject_per_second),
    ):
        if there != should:
            yield f"{what} is another one than it should be"
    if wanted.pod_networks is not None and bool(value.flags & known) != bool(wanted.pod_networks):
        yield "whether the pods' networks are known is not as it should be"


def _text(address: bytes | None) -> str:
    return format_address(address) if address else "none"

"""One function a map: its contents as rows. A row is what `-o json` prints, in that order."""

import socket
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

from ebpf_lb.datapath.clock import ticks_per_second, time_bits
from ebpf_lb.datapath.dump.flows import flows
from ebpf_lb.datapath.dump.view import View, protocol_name
from ebpf_lb.datapath.layout import Scope
from ebpf_lb.datapath.libbpf import Program
from ebpf_lb.model.values import Protocol, format_address

Row = dict[str, Any]

_CONSTANTS = frozenset({"crc32c_shifts", "slots", "ways"})
"""Shown only when asked for: numbers that mean little to people."""

_BEING_WRITTEN = ("FLOW_FREE", "FLOW_CLAIMED", "FLOW_TENTATIVE")


def map_names(view: View, *, all_of_them: bool = True) -> list[str]:
    """The family's maps (those of the whole node too), in the order of bpf/ground/maps.h."""
    return [name for name in view.layout.maps if all_of_them or name not in _CONSTANTS]


def dump(view: View, name: str) -> list[Row]:
    """A map's rows in a stable order; KeyError if there is no such map."""
    view.layout.map(name)
    decoder = _DECODERS.get(name)
    return list(decoder(view) if decoder else _any(view, name))


def is_node_map(view: View, name: str) -> bool:
    """Both families share it."""
    return view.layout.map(name).scope is Scope.NODE


def _frontends(view: View) -> Iterator[Row]:
    order = {protocol.value: number for number, protocol in enumerate(Protocol)}
    rows = sorted(
        view.rows("frontends"),
        key=lambda row: (row[0].address, row[0].port, order.get(row[0].protocol, 9)),
    )
    for key, value in rows:
        yield {
            "address": format_address(key.address),
            "port": key.port,
            "protocol": protocol_name(key.protocol) if key.protocol else None,
            "kind": view.name_of("frontend_kind", value.kind),
            "service": view.service(value.service_id),
            "flags": view.flags("frontend_flag", value.flags),
        }


def _services(view: View) -> Iterator[Row]:
    for number, name in view.names.items():
        value = view.element("services", number)
        if value is None:
            continue
        timeout_s = round(value.affinity_timeout / ticks_per_second())
        yield {
            "service": name.service,
            "protocol": name.protocol,
            "id": number,
            "cluster": _set(view, value.cluster),
            "local": _set(view, value.local),
            "affinity_timeout_s": timeout_s,
            "flags": view.flags("service_flag", value.flags),
        }


def _set(view: View, word: int) -> list[str | None]:
    """A set's backends; where they have several slots each, with their number."""
    ids = Counter(_region(view, word))
    if ids.total() == len(ids):
        return [view.backend(number) for number in ids]
    return [f"{view.backend(number)} ({slots} slots)" for number, slots in sorted(ids.items())]


def _region(view: View, word: int) -> list[int]:
    """The backend ids in a region."""
    opened = view.map("slots")
    base, size = word & 0xFFFFFFFF, word >> 32
    if opened is None or not size or base + size > opened.max_entries:
        return []
    data = opened.slice(base, size)
    return [int.from_bytes(data[start : start + 4], "little") for start in range(0, len(data), 4)]


def _slots(view: View) -> Iterator[Row]:
    found = []
    for number, name in view.names.items():
        value = view.element("services", number)
        for which, word in (("cluster", value.cluster), ("local", value.local)):
            base = word & 0xFFFFFFFF
            for index, backend_id in enumerate(_region(view, word), base):
                found.append((index, name, which, backend_id))
    for index, name, which, backend_id in sorted(found, key=lambda row: row[0]):
        yield {
            "index": index,
            "service": name.service,
            "protocol": name.protocol,
            "set": which,
            "backend_id": backend_id,
            "backend": view.backend(backend_id),
        }


def _backends(view: View) -> Iterator[Row]:
    unpack = view.layout.struct("backend").unpack
    for number, data in view.used_elements("backends"):
        value = unpack(data)
        name = view.names.get(value.service_id)
        yield {
            "id": number,
            "address": format_address(value.address),
            "port": value.port,
            "protocol": name.protocol if name else None,
            "service": view.service(value.service_id),
            "flags": view.flags("backend_flag", value.flags),
        }


def _flows(view: View) -> Iterator[Row]:
    rows = sorted(
        flows(view), key=lambda flow: (flow.entry.client, flow.entry.client_port, flow.set)
    )
    for flow in rows:
        entry = flow.entry
        yield {
            "client": format_address(entry.client),
            "client_port": entry.client_port,
            "vip": format_address(entry.vip),
            "vip_port": entry.vip_port,
            "backend": format_address(entry.backend),
            "backend_port": entry.backend_port,
            "protocol": flow.protocol,
            "state": flow.state,
            "age_s": view.age_s(flow.tick, time_bits()),
            "service": view.service(flow.service_id),
            "flags": flow.flags,
            "snat_address": _snat_address(view, flow.source_id),
            "snat_port": entry.snat_port or None,
        }


def _snat_address(view: View, number: int) -> str | None:
    value = view.element("snat_sources", number) if number else None
    return None if value is None else format_address(value.address)


def _census(view: View) -> Iterator[Row]:
    """The last complete pass of the sweep; nothing before there was one."""
    states = {number: name for name, number in view.layout.enum("flow_state").items()}
    for _, value in view.rows("census"):
        if not value.passes:
            continue
        for number, name in sorted(states.items()):
            if name not in _BEING_WRITTEN:
                yield {"state": name.removeprefix("FLOW_"), "entries": value.counted[number]}
        signposts = value.counted[view.layout.defines["CENSUS_SIGNPOSTS"] :]
        yield {"state": "SIGNPOST", "entries": sum(signposts)}


def _flow_events(view: View) -> Iterator[Row]:
    names = {number: name for name, number in view.layout.enum("flow_event").items()}
    for number, copies in view.rows("flow_events"):
        if number in names:
            yield {"event": names[number].removeprefix("FLOW_EVENT_"), "count": sum(copies)}


def _ways(view: View) -> Iterator[Row]:
    defines = view.layout.defines
    for flow in flows(view):
        ways = view.element("ways", flow.set)
        way = ways.entry[flow.slot] if ways else None
        ifindex = way.ifindex & defines["SEND_IFINDEX"] if way else 0
        if way and ifindex:
            yield {
                "set": flow.set,
                "slot": flow.slot,
                "interface": _interface_name(ifindex),
                "ifindex": ifindex,
                "destination_mac": way.destination_mac.hex(":"),
                "source_mac": way.source_mac.hex(":"),
            }


def _affinity(view: View) -> Iterator[Row]:
    for key, value in sorted(
        view.rows("affinity"), key=lambda row: (row[0].client, row[0].service_id)
    ):
        yield {
            "client": format_address(key.client),
            "service": view.service(key.service_id),
            "backend_id": value.backend_id,
            "backend": view.backend(value.backend_id),
            "age_s": view.age_s(value.last_used, 32),
        }


def _fragments(view: View) -> Iterator[Row]:
    for key, value in sorted(view.rows("fragments")):
        yield {
            "source": format_address(key.source),
            "destination": format_address(key.destination),
            "id": key.id,
            "protocol": protocol_name(key.protocol),
            "source_port": value.source_port,
            "destination_port": value.destination_port,
            "new_id": value.new_id,
            "by_stack": bool(value.flags & view.layout.enum("fragment_flag")["FRAGMENT_BY_STACK"]),
        }


def _sockets(view: View) -> Iterator[Row]:
    entries = view.layout.enum("socket_entry")
    for key, value in sorted(view.rows("sockets")):
        asks = key.entry == entries["SOCKET_ASKS"]
        vip, backend = (key, value) if asks else (value, key)
        yield {
            "cookie": key.cookie,
            "entry": "ASKS" if asks else "HEARS",
            "vip": format_address(vip.address),
            "vip_port": vip.port,
            "backend": format_address(backend.address),
            "backend_port": backend.port,
            "service": view.service(value.service_id),
            "age_s": view.age_s(value.last_used, 32),
        }


def _source_ranges(view: View) -> Iterator[Row]:
    layout = view.layout.struct("source_range_key")
    before = 8 * (layout.offset("address") - layout.offset("service_id"))
    for key, _ in sorted(view.rows("source_ranges")):
        yield {
            "service": view.service(key.service_id),
            "network": f"{format_address(key.address)}/{key.prefix_length - before}",
        }


def _pod_networks(view: View) -> Iterator[Row]:
    for key, _ in sorted(view.rows("pod_networks"), key=lambda row: row[0].address):
        yield {"network": f"{format_address(key.address)}/{key.prefix_length}"}


def _service_networks(view: View) -> Iterator[Row]:
    value = view.element("service_networks", 0)
    for entry in value.entry if value else ():
        if any(entry.mask):
            length = int.from_bytes(entry.mask).bit_count()
            yield {"network": f"{format_address(entry.prefix)}/{length}"}


def _interfaces(view: View) -> Iterator[Row]:
    for ifindex, value in sorted(view.rows("interfaces")):
        yield {
            "interface": _interface_name(ifindex),
            "ifindex": ifindex,
            "bridge": _interface_name(value.bridge) if value.bridge else None,
            "snat_source": _snat_address(view, value.source_id),
        }


def _interface_name(ifindex: int) -> str | None:
    try:
        return socket.if_indextoname(ifindex)
    except OSError:
        return None  # gone, or in another network namespace


def _snat_sources(view: View) -> Iterator[Row]:
    for number, value in view.rows("snat_sources"):
        if any(value.address):
            yield {"id": number, "address": format_address(value.address)}


def _names(view: View) -> Iterator[Row]:
    for number, name in view.names.items():
        yield {"service": name.service, "protocol": name.protocol, "id": number}


def _counters(view: View) -> Iterator[Row]:
    reasons = view.layout.reasons
    for number, copies in view.rows("counters"):
        packets = sum(copy.packets for copy in copies)
        if packets:
            reason = reasons.get(number)
            yield {
                "reason": reason.name if reason else str(number),
                "number": number,
                "packets": packets,
                "bytes": sum(copy.bytes for copy in copies),
                "meaning": reason.sentence if reason else "unknown to this version",
            }


def _service_counters(view: View) -> Iterator[Row]:
    opened, unpack = view.map("service_counters"), view.layout.struct("service_counter").unpack
    for number, name in view.names.items():
        value = opened.lookup(number.to_bytes(4, "little")) if opened else None
        if opened and value:
            copies = [unpack(copy) for copy in opened.copies(value)]
            yield {
                "service": name.service,
                "protocol": name.protocol,
                "connections": sum(copy.connections for copy in copies),
                "packets": sum(copy.packets for copy in copies),
                "bytes": sum(copy.bytes for copy in copies),
            }


def _vip_filter(view: View) -> Iterator[Row]:
    opened = view.map("vip_filter")
    if opened is not None:
        set_bits = sum(
            int.from_bytes(values, "little").bit_count() for _, values in opened.chunks()
        )
        yield {"bits": opened.max_entries * 64, "set": set_bits}


def _calls(view: View) -> Iterator[Row]:
    for index, number in view.rows("calls"):
        with Program.by_id(number) as program:
            yield {"index": index, "program": program.info().name, "id": number}


def _scratch(view: View) -> Iterator[Row]:
    """Nothing: what a program left there was about a packet that is gone."""
    yield from ()


def _any(view: View, name: str) -> Iterator[Row]:
    """A map without a decoder of its own: its fields as they are, empty elements left out."""
    single = view.layout.map(name).max_entries == 1
    for key, value in view.rows(name):
        row: Row = {}
        for prefix, part in (("value", value),) if single else (("key", key), ("value", value)):
            fields = part._asdict() if hasattr(part, "_asdict") else {prefix: part}
            row.update(
                (field, content.hex() if isinstance(content, bytes) else content)
                for field, content in fields.items()
            )
        if any(value) if isinstance(value, tuple | list) else value:
            yield row


_DECODERS: dict[str, Callable[[View], Iterator[Row]]] = {
    "frontends": _frontends,
    "vip_filter": _vip_filter,
    "services": _services,
    "slots": _slots,
    "backends": _backends,
    "flows": _flows,
    "ways": _ways,
    "census": _census,
    "flow_events": _flow_events,
    "affinity": _affinity,
    "fragments": _fragments,
    "sockets": _sockets,
    "source_ranges": _source_ranges,
    "pod_networks": _pod_networks,
    "service_networks": _service_networks,
    "interfaces": _interfaces,
    "snat_sources": _snat_sources,
    "names": _names,
    "counters": _counters,
    "service_counters": _service_counters,
    "scratch": _scratch,
    "calls": _calls,
}

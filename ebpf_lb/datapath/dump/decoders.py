"""One function a map: the reader's records as rows. A row is what `-o json` prints."""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from ebpf_lb.datapath.layout import Scope
from ebpf_lb.datapath.libbpf import Program
from ebpf_lb.datapath.reader import View, counters, flows, node, services
from ebpf_lb.datapath.reader.owners import Owners
from ebpf_lb.model.values import format_address

Row = dict[str, Any]

_CONSTANTS = frozenset({"crc32c_shifts", "slots", "ways", "events"})
"""Shown only when asked for: numbers that mean little to people."""


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
    for one in services.frontends(view):
        yield {
            "address": format_address(one.address),
            "port": one.port,
            "protocol": one.protocol,
            "kind": one.kind,
            "service": one.service,
            "flags": list(one.flags),
        }


def _services(view: View) -> Iterator[Row]:
    for one in services.service_ports(view):
        yield {
            "service": one.service,
            "protocol": one.protocol,
            "id": one.id,
            "cluster": _set(view, one.cluster),
            "local": _set(view, one.local),
            "algorithm": one.algorithm,
            "affinity_timeout_s": one.affinity_timeout_s,
            "flags": list(one.flags),
        }


def _set(view: View, ids: Mapping[int, int]) -> list[str | None]:
    """A set's backends; where they have several slots each, with their number."""
    if all(slots == 1 for slots in ids.values()):
        return [view.backend(number) for number in ids]
    return [f"{view.backend(number)} ({slots} slots)" for number, slots in sorted(ids.items())]


def _slots(view: View) -> Iterator[Row]:
    for one in services.slots(view):
        yield {
            "index": one.place,
            "service": one.service,
            "protocol": one.protocol,
            "set": one.set,
            "backend_id": one.backend_id,
            "backend": view.backend(one.backend_id),
        }


def _backends(view: View) -> Iterator[Row]:
    for one in services.backends(view):
        row = {
            "id": one.id,
            "address": format_address(one.address),
            "port": one.port,
            "protocol": one.protocol,
            "service": one.service,
            "flags": list(one.flags),
        }
        counted = {"weight": one.weight, "connections": one.connections}
        yield row | (counted if one.connections is not None else {})


def _connections(view: View) -> Iterator[Row]:
    for one in services.backends(view):
        if one.connections is not None:
            yield {
                "backend_id": one.id,
                "backend": view.backend(one.id),
                "service": one.service,
                "connections": one.connections,
            }


def _turns(view: View) -> Iterator[Row]:
    for one in services.turns(view):
        yield one._asdict()


def flow_row(view: View, entry: flows.Entry, service: str | None) -> Row:
    """One entry of the connection table; a signpost is told as what it is."""
    word = entry.word
    row = {
        "kind": word.kind,
        "client": format_address(entry.client),
        "client_port": entry.client_port,
    }
    backend = {"backend": format_address(entry.backend), "backend_port": entry.backend_port}
    told = {
        "protocol": word.protocol,
        "state": word.state,
        "age_s": flows.age_s(view, word),
        "service": service,
        "flags": list(word.flags),
    }
    if word.kind == flows.SIGNPOST:
        snat = {"snat_address": format_address(entry.vip), "snat_port": entry.vip_port}
        return row | {"vip": None, "vip_port": None} | backend | told | snat
    source = node.source(view, word.source_id)
    return (
        row
        | {"vip": format_address(entry.vip), "vip_port": entry.vip_port}
        | backend
        | told
        | {
            "snat_address": format_address(source) if source else None,
            "snat_port": entry.snat_port or None,
        }
    )


def _flows(view: View) -> Iterator[Row]:
    found = sorted(
        flows.entries(view),
        key=lambda one: (one.client, one.client_port, one.word.kind, one.set, one.slot),
    )
    owners = Owners(view)
    for entry in found:
        yield flow_row(view, entry, owners.service(entry))


def _census(view: View) -> Iterator[Row]:
    """The last complete pass of the sweep; nothing before there was one."""
    found = counters.census(view)
    if found is not None:
        for state, number in found.by_state.items():
            yield {"state": state, "entries": number}
        yield {"state": "SIGNPOST", "entries": found.signposts}


def _flow_events(view: View) -> Iterator[Row]:
    for one in counters.flow_events(view):
        yield {"event": one.name, "count": one.times}


def _ways(view: View) -> Iterator[Row]:
    for one in node.ways(view):
        yield {
            "set": one.set,
            "slot": one.slot,
            "interface": node.interface_name(one.ifindex),
            "ifindex": one.ifindex,
            "destination_mac": one.destination_mac.hex(":"),
            "source_mac": one.source_mac.hex(":"),
        }


def _affinity(view: View) -> Iterator[Row]:
    for one in services.affinities(view):
        yield {
            "client": format_address(one.client),
            "service": one.service,
            "backend_id": one.backend_id,
            "backend": one.backend,
            "age_s": one.age_s,
        }


def _fragments(view: View) -> Iterator[Row]:
    for one in node.fragments(view):
        yield {
            "source": format_address(one.source),
            "destination": format_address(one.destination),
            "id": one.id,
            "protocol": one.protocol,
            "source_port": one.source_port,
            "destination_port": one.destination_port,
            "new_id": one.new_id,
        }


def _sockets(view: View) -> Iterator[Row]:
    for one in node.socket_entries(view):
        yield {
            "cookie": str(one.cookie),
            "entry": one.kind,
            "vip": format_address(one.frontend),
            "vip_port": one.frontend_port,
            "backend": format_address(one.backend),
            "backend_port": one.backend_port,
            "service": one.service,
            "age_s": one.age_s,
        }


def _source_ranges(view: View) -> Iterator[Row]:
    for one in services.source_ranges(view):
        yield {
            "service": one.service,
            "network": f"{format_address(one.address)}/{one.prefix_length}",
        }


def _pod_networks(view: View) -> Iterator[Row]:
    for address, length in node.pod_networks(view):
        yield {"network": f"{format_address(address)}/{length}"}


def _service_networks(view: View) -> Iterator[Row]:
    for address, length in node.service_networks(view):
        yield {"network": f"{format_address(address)}/{length}"}


def _interfaces(view: View) -> Iterator[Row]:
    for one in node.interfaces(view):
        yield {
            "interface": one.name,
            "ifindex": one.ifindex,
            "bridge": one.bridge_name,
            "snat_source": format_address(one.source) if one.source else None,
        }


def _snat_sources(view: View) -> Iterator[Row]:
    for one in node.sources(view):
        yield {"id": one.id, "address": format_address(one.address)}


def _names(view: View) -> Iterator[Row]:
    for number, name in view.names.items():
        yield {"service": name.service, "protocol": name.protocol, "id": number}


def _counters(view: View) -> Iterator[Row]:
    for one in counters.reason_counts(view):
        if one.packets:
            yield {
                "reason": one.reason.name if one.reason else str(one.number),
                "number": one.number,
                "packets": one.packets,
                "bytes": one.bytes,
                "meaning": one.reason.sentence if one.reason else "unknown to this version",
            }


def _service_counters(view: View) -> Iterator[Row]:
    for one in counters.service_counts(view):
        yield {
            "service": one.service,
            "protocol": one.protocol,
            "connections": one.connections,
            "packets": one.packets,
            "bytes": one.bytes,
        }


def _service_drops(view: View) -> Iterator[Row]:
    for one in counters.service_drops(view):
        yield {
            "service": one.service,
            "protocol": one.protocol,
            "verdict": one.reason.verdict.value,
            "reason": one.reason.name,
            "packets": one.packets,
        }


def _filter(name: str) -> Callable[[View], Iterator[Row]]:
    """How many bits of a filter are set: which, means nothing to anybody."""

    def bits(view: View) -> Iterator[Row]:
        opened = view.map(name)
        if opened is not None:
            chunks = (int.from_bytes(values, "little") for _, values in opened.chunks())
            yield {
                "bits": opened.max_entries * opened.value_size * 8,
                "set": sum(one.bit_count() for one in chunks),
            }

    return bits


def _used(name: str) -> Callable[[View], Iterator[Row]]:
    """How many elements are in use: what is in them means nothing to anybody."""

    def used(view: View) -> Iterator[Row]:
        opened = view.map(name)
        if opened is not None:
            sizes = Counter(any(value) for _, value in opened.items())
            yield {"elements": opened.max_entries, "used": sizes[True]}

    return used


def _calls(view: View) -> Iterator[Row]:
    for index, number in view.rows("calls"):
        try:
            with Program.by_id(number) as program:
                name = program.info().name
        except PermissionError:  # that takes CAP_SYS_ADMIN
            name = ""
        yield {"index": index, "program": name, "id": number}


def _nothing(view: View) -> Iterator[Row]:
    """What a program left there was about a packet that is gone."""
    yield from ()


def _any(view: View, name: str) -> Iterator[Row]:
    """A map without a decoder of its own: its fields as they are, empty elements left out. Whole
    64-bit numbers are texts: JSON's readers round them."""
    spec = view.layout.map(name)
    single = spec.max_entries == 1
    for key, value in view.rows(name):
        if not (any(value) if isinstance(value, tuple | list) else value):
            continue
        row: Row = {}
        for prefix, part in (("value", value),) if single else (("key", key), ("value", value)):
            fields = part._asdict() if hasattr(part, "_asdict") else {prefix: part}
            row.update((field, _plain(content)) for field, content in fields.items())
        yield row


def _plain(content: Any) -> Any:
    if isinstance(content, bytes):
        return content.hex()
    if isinstance(content, list | tuple):
        return [_plain(one) for one in content]
    return str(content) if isinstance(content, int) and content >= 1 << 32 else content


_DECODERS: dict[str, Callable[[View], Iterator[Row]]] = {
    "frontends": _frontends,
    "vip_filter": _filter("vip_filter"),
    "masqueraded": _filter("masqueraded"),
    "repliers": _filter("repliers"),
    "overflows": _used("overflows"),
    "fragment_ids": _used("fragment_ids"),
    "events": _used("events"),
    "services": _services,
    "slots": _slots,
    "connections": _connections,
    "turns": _turns,
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
    "service_drops": _service_drops,
    "scratch": _nothing,
    "calls": _calls,
}

"""Services as the programs see them: frontends, sets of backends, what affinity remembers."""

from collections import Counter
from collections.abc import Iterator
from typing import NamedTuple

from ebpf_lb.datapath.clock import ticks_per_second
from ebpf_lb.datapath.reader.view import View, protocol_name
from ebpf_lb.model.values import Protocol


class Frontend(NamedTuple):
    """An address and port that we accept on. Port 0: all others of a ClusterIP."""

    address: bytes
    port: int
    protocol: str | None
    kind: str
    service_id: int
    service: str | None
    flags: tuple[str, ...]


class ServicePort(NamedTuple):
    """A Service's port. Sets are backends' ids with the number of slots that each has."""

    id: int
    service: str  # namespace/name:port
    protocol: str
    cluster: dict[int, int]
    local: dict[int, int]
    affinity_timeout_s: int
    has_any: bool
    flags: tuple[str, ...]


class Backend(NamedTuple):
    id: int
    address: bytes
    port: int
    protocol: str | None
    service_id: int
    service: str | None
    flags: tuple[str, ...]


class Slot(NamedTuple):
    place: int
    service: str
    protocol: str
    set: str  # cluster or local
    backend_id: int


class Affinity(NamedTuple):
    """Which backend a client keeps to."""

    client: bytes
    service_id: int
    service: str | None
    backend_id: int
    backend: str | None
    age_s: float | None


class SourceRange(NamedTuple):
    service_id: int
    service: str | None
    address: bytes
    prefix_length: int


_ORDER = {protocol.value: number for number, protocol in enumerate(Protocol)}


def frontends(view: View) -> Iterator[Frontend]:
    """By address, port and protocol."""
    rows = sorted(
        view.rows("frontends"),
        key=lambda row: (row[0].address, row[0].port, _ORDER.get(row[0].protocol, len(_ORDER))),
    )
    kinds = {number: name for name, number in view.short("frontend_kind").items()}
    for key, value in rows:
        yield Frontend(
            key.address,
            key.port,
            protocol_name(key.protocol) if key.protocol else None,
            kinds.get(value.kind, str(value.kind)),
            value.service_id,
            view.service(value.service_id),
            view.flags("frontend_flag", value.flags),
        )


def service_ports(view: View) -> Iterator[ServicePort]:
    """By name and protocol."""
    has_any = view.layout.enum("service_flag")["SERVICE_HAS_ANY"]
    for number, name in view.names.items():
        value = view.element("services", number)
        if value is None:
            continue
        yield ServicePort(
            number,
            name.service,
            name.protocol,
            dict(Counter(_region(view, value.cluster))),
            dict(Counter(_region(view, value.local))),
            round(value.affinity_timeout / ticks_per_second()),
            bool(value.flags & has_any),
            view.flags("service_flag", value.flags),
        )


def backends(view: View) -> Iterator[Backend]:
    """By number."""
    unpack = view.layout.struct("backend").unpack
    for number, data in view.used_elements("backends"):
        value = unpack(data)
        name = view.names.get(value.service_id)
        yield Backend(
            number,
            value.address,
            value.port,
            name.protocol if name else None,
            value.service_id,
            view.service(value.service_id),
            view.flags("backend_flag", value.flags),
        )


def slots(view: View) -> list[Slot]:
    """Of all Services' sets, by index."""
    found = []
    for number, name in view.names.items():
        value = view.element("services", number)
        if value is None:
            continue
        for which, word in (("cluster", value.cluster), ("local", value.local)):
            for index, backend_id in enumerate(_region(view, word), word & 0xFFFFFFFF):
                found.append(Slot(index, name.service, name.protocol, which, backend_id))
    return sorted(found)


def affinities(view: View) -> Iterator[Affinity]:
    """By client and Service."""
    rows = sorted(view.rows("affinity"), key=lambda row: (row[0].client, row[0].service_id))
    for key, value in rows:
        yield Affinity(
            key.client,
            key.service_id,
            view.service(key.service_id),
            value.backend_id,
            view.backend(value.backend_id),
            view.age_s(value.last_used, 32),
        )


def source_ranges(view: View) -> Iterator[SourceRange]:
    layout = view.layout.struct("source_range_key")
    before = 8 * (layout.offset("address") - layout.offset("service_id"))
    for key, _ in sorted(view.rows("source_ranges")):
        yield SourceRange(
            key.service_id,
            view.service(key.service_id),
            key.address,
            key.prefix_length - before,
        )


def _region(view: View, word: int) -> list[int]:
    """The backend ids in a region of `slots`."""
    opened = view.map("slots")
    base, size = word & 0xFFFFFFFF, word >> 32
    if opened is None or not size or base + size > opened.max_entries:
        return []
    data = opened.slice(base, size)
    return [int.from_bytes(data[start : start + 4], "little") for start in range(0, len(data), 4)]

"""Services as the programs see them: frontends, sets of backends, what affinity remembers."""

from collections import Counter
from collections.abc import Iterator
from typing import NamedTuple

from ebpf_lb.datapath.clock import ticks_per_second
from ebpf_lb.datapath.layout.region import region_of
from ebpf_lb.datapath.reader.view import View, protocol_name
from ebpf_lb.model.service import Algorithm
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
    algorithm: str


class Backend(NamedTuple):
    """weight, connections: of a Service that goes by the number of connections."""

    id: int
    address: bytes
    port: int
    protocol: str | None
    service_id: int
    service: str | None
    flags: tuple[str, ...]
    weight: int | None
    connections: int | None


class Turn(NamedTuple):
    """How many connections of a Service port have been spread in turn."""

    service: str
    protocol: str
    cluster: int
    local: int


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
            _algorithm(view, value.flags),
        )


def _algorithm(view: View, flags: int) -> str:
    named = view.layout.enum("service_flag")
    for one in Algorithm:
        if flags & named.get(f"SERVICE_{one.name}", 0):
            return one.value
    return Algorithm.RANDOM.value


def turns(view: View) -> Iterator[Turn]:
    """Of Service ports that are served so, or were."""
    for number, name in view.names.items():
        value = view.element("turns", number)
        if value is not None and (value.cluster or value.local):
            yield Turn(name.service, name.protocol, value.cluster, value.local)


def backends(view: View) -> Iterator[Backend]:
    """By number."""
    unpack = view.layout.struct("backend").unpack
    counted = view.layout.enum("backend_flag")["BACKEND_COUNTED"]
    for number, data in view.used_elements("backends"):
        value = unpack(data)
        name = view.names.get(value.service_id)
        counts = bool(value.flags & counted)
        yield Backend(
            number,
            value.address,
            value.port,
            name.protocol if name else None,
            value.service_id,
            view.service(value.service_id),
            view.flags("backend_flag", value.flags),
            value.weight if counts else None,
            _signed(view.element("connections", number)) if counts else None,
        )


def _signed(number: int | None) -> int:
    """Below nothing, where one CPU counts an end before another the beginning, is nothing."""
    return 0 if number is None or number >> 31 else number


def slots(view: View) -> list[Slot]:
    """Of all Services' sets, by index."""
    found = []
    for number, name in view.names.items():
        value = view.element("services", number)
        if value is None:
            continue
        for which, word in (("cluster", value.cluster), ("local", value.local)):
            for index, backend_id in enumerate(_region(view, word), region_of(word)[0]):
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
    base, size = region_of(word)
    if opened is None or not size or base + size > opened.max_entries:
        return []
    data = opened.slice(base, size)
    return [int.from_bytes(data[start : start + 4], "little") for start in range(0, len(data), 4)]

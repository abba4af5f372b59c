"""What the maps hold of a Service port, against what is planned: entry by entry, by reading alone.

Nothing that a writer remembers is believed here. Where consistent hashing spreads connections, the
set's members are compared and not each slot: which slot is whose follows from them.
"""

import math
import struct
from collections import Counter
from collections.abc import Iterable, Iterator
from functools import reduce
from itertools import islice
from math import gcd
from typing import NamedTuple

from ebpf_lb.datapath import clock
from ebpf_lb.datapath.layout.region import region_of
from ebpf_lb.datapath.libbpf import Map
from ebpf_lb.datapath.reader import View
from ebpf_lb.datapath.writer.hashes import end_bits, filter_bit
from ebpf_lb.datapath.writer.names import format_name
from ebpf_lb.errors import UserError
from ebpf_lb.model.service import Algorithm
from ebpf_lb.model.values import Family, format_address, format_endpoint
from ebpf_lb.plan.forwarding import (
    Backend,
    Forwarding,
    FrontendFlag,
    FrontendKind,
    ServicePortName,
    Spread,
    Table,
)
from ebpf_lb.plan.node import LOOPBACK

_INDEX = struct.Struct("=I")
# Others tell how long a frontend has hashed consistently, which no plan knows.
_PLANNED = int(FrontendFlag.LOCAL | FrontendFlag.SOURCE_RANGES)
_BYTE = 8
_MAPS = ("frontends", "services", "slots", "backends", "names", "source_ranges", "vip_filter")
_End = tuple[bytes, int]


class _Member(NamedTuple):
    """A backend as it stands in a set: how many slots it has, and what is said of it."""

    slots: int
    flags: int
    weight: int


class Comparison:
    """One family's pinned maps. `close` it."""

    def __init__(self, view: View) -> None:
        """UserError: a map is missing."""
        self.family: Family = view.family
        self._view = view
        layout = view.layout
        key, frontend = layout.struct("frontend_key"), layout.struct("frontend")
        self._pack_key = key.raw("address", "port", "protocol").pack
        self._frontend = frontend.raw("service_id", "kind", "flags").unpack
        self._backend = layout.struct("backend").raw(
            "address", "port", "service_id", "flags", "weight"
        )
        self._service = layout.struct("service").unpack
        self._range = layout.struct("source_range_key")
        self._unserved = layout.enum("frontend_kind")["FRONTEND_UNSERVED"]
        self._localhost = bytes([layout.defines["FRONTEND_PAD_LOCALHOST"]])
        service_flags = layout.enum("service_flag")
        self._has_any = service_flags["SERVICE_HAS_ANY"]
        self._algorithms = {one: service_flags.get(f"SERVICE_{one.name}", 0) for one in Algorithm}
        flags = layout.enum("backend_flag")
        self._counted, self._on_node = flags["BACKEND_COUNTED"], flags["BACKEND_ON_NODE"]
        self._in_set = {
            "cluster": flags["BACKEND_IN_CLUSTER_SET"],
            "local": flags["BACKEND_IN_LOCAL_SET"],
        }
        self._ticks_per_second = clock.ticks_per_second()
        # at once, and held: they outlive their pins, which somebody may remove
        self._maps: dict[str, Map] = {}
        for name in _MAPS:
            opened = view.open(name, read_only=True)
            if opened is None:
                raise UserError(f"The map {name} is not pinned: start the agent again.")
            self._maps[name] = opened
        # the kernel maps only what is open for writing, even for reading
        ends = view.open("known_ends", read_only=False)
        if ends is None:
            raise UserError("The map known_ends is not pinned: start the agent again.")
        with ends:
            self._known_ends = ends.mapped(writable=False)

    def close(self) -> None:
        self._known_ends.close()
        for one in self._maps.values():
            one.close()

    def ids(self) -> dict[ServicePortName, int]:
        """Of all Service ports that have a name in the maps."""
        from ebpf_lb.datapath.writer.names import parse_name

        found = {}
        for number, value in self._view.rows("names"):
            try:
                found[parse_name(value.text)] = number
            except ValueError:
                continue
        return found

    def frontend_counts(self) -> Counter[int]:
        """How many frontends there are by the id of the Service port that has them; 0: entries for
        ClusterIPs' other ports."""
        unpack = self._frontend
        return Counter(unpack(value)[0] for _, value in self._maps["frontends"].items())

    def differences(self, number: int | None, wanted: Forwarding) -> list[str]:
        """Sentences about a Service port, whose id in the maps is `number`."""
        return list(self._differences(number, wanted))

    def _differences(self, number: int | None, wanted: Forwarding) -> Iterator[str]:
        name = None if number is None else self._maps["names"].lookup(_INDEX.pack(number))
        unpack = self._view.layout.struct("service_name").unpack
        if number is None or name is None or unpack(name).text != format_name(wanted.name):
            yield "it is not in the maps"
            return
        yield from self._frontends(number, wanted)
        value = self._service(self._maps["services"].lookup(_INDEX.pack(number)) or b"")
        timeout = math.ceil(wanted.affinity_timeout_s * self._ticks_per_second)
        if value.affinity_timeout != timeout:
            yield "its session affinity lasts for another time"
        if bool(value.flags & self._has_any) != wanted.has_any:
            yield "whether it has any endpoint is not as it should be"
        if value.flags & ~self._has_any != self._algorithms[wanted.algorithm]:
            yield "its connections are spread by another algorithm"
        weights = _counted_weights(wanted)
        for which, word, backends, table in (
            ("cluster", value.cluster, wanted.cluster, wanted.cluster_table),
            ("local", value.local, wanted.local, wanted.local_table),
        ):
            yield from self._set(which, number, word, backends, table, weights)
        yield from self._source_ranges(number, wanted)

    def _frontends(self, number: int, wanted: Forwarding) -> Iterator[str]:
        lookup, seen = self._maps["frontends"].lookup, set()
        for address, port, kind, flags in wanted.frontends:
            key = self.key(address, port, wanted.name.protocol)
            if key in seen:
                continue  # one address of two kinds: the first counts
            seen.add(key)
            where, value = format_endpoint(address, port), lookup(key)
            if value is None:
                yield f"{where} is missing"
            else:
                owner, held, bits = self._frontend(value)
                if owner != number:
                    yield f"{where} leads to {self._view.service(owner) or 'nothing'}"
                elif (held, bits & _PLANNED) != (kind, flags & _PLANNED):
                    yield f"{where} has another kind, or another policy"
            if not self._in_filter(address):
                yield f"{format_address(address)} is not in the filter of Services' addresses"
            if value is not None:
                yield from self._unknown([(address, port)])
            if kind is FrontendKind.CLUSTER_IP and address not in LOOPBACK:
                others = lookup(self.key(address, 0, 0))
                if others is None or self._frontend(others)[1] != self._unserved:
                    yield f"the other ports of {format_address(address)} are not refused"

    def key(self, address: bytes, port: int, protocol: int) -> bytes:
        """A frontend's."""
        key = self._pack_key(address, port.to_bytes(2), protocol)
        return key[:-1] + self._localhost if address in LOOPBACK else key

    def _in_filter(self, address: bytes) -> bool:
        table = self._maps["vip_filter"]
        index, bit = filter_bit(address, table.max_entries)
        word = int.from_bytes(table.lookup(_INDEX.pack(index)) or b"", "little")
        return bool(word >> bit & 1)

    def _unknown(self, ends: Iterable[_End]) -> Iterator[str]:
        """Of these, what programs would not look up."""
        ends, words = list(ends), self._known_ends
        packed = [address + port.to_bytes(2) for address, port in ends]
        bits = end_bits(packed, words.count)
        for end, bit in zip(ends, bits, strict=True):
            if not words.load(bit >> 6) >> (bit & 63) & 1:
                yield f"{format_endpoint(*end)} is not in the filter of known ends"

    def _set(
        self,
        which: str,
        number: int,
        word: int,
        wanted: tuple[Backend, ...],
        table: Table | None,
        counted: dict[_End, int],
    ) -> Iterator[str]:
        held = self._members(number, word, self._in_set[which])
        if held is None:
            yield f"its {which} set names backends that are not its own"
            return
        yield from self._unknown(held)
        planned = {(one.address, one.port): one.local for one in wanted}
        for sentence, ends in (("is missing in", planned.keys() - held.keys()),
                               ("should not be in", held.keys() - planned.keys())):  # fmt: skip
            for address, port in islice(sorted(ends), 3):
                yield f"{format_endpoint(address, port)} {sentence} its {which} set"
        for at in sorted(planned.keys() & held.keys()):
            member = held[at]
            if bool(member.flags & self._on_node) != planned[at]:
                yield f"{format_endpoint(*at)}: whether it runs here is not as it should be"
            if (bool(member.flags & self._counted), member.weight) != (
                at in counted,
                counted.get(at, 0),
            ):
                yield f"{format_endpoint(*at)} has another weight for counted connections"
        if planned.keys() != held.keys() or (table is not None and table.spread is Spread.MAGLEV):
            return
        weights = {} if table is None or table.spread is Spread.ONE_EACH else _turns(wanted, table)
        if any(held[at].slots != weights.get(at, 1) for at in planned):
            yield f"its {which} set has a backend more often, or less, than it should"

    def _members(self, number: int, word: int, flag: int) -> dict[_End, _Member] | None:
        """The backends of a region of `slots`; None if it leads elsewhere."""
        slots, (base, size) = self._maps["slots"], region_of(word)
        if base + size > slots.max_entries:
            return None
        ids = Counter(_INDEX.iter_unpack(slots.slice(base, size))) if size else Counter()
        found: dict[_End, _Member] = {}
        lookup = self._maps["backends"].lookup
        for (one,), times in ids.items():
            value = lookup(_INDEX.pack(one))
            if not one or value is None:
                return None
            address, port, owner, flags, weight = self._backend.unpack(value)
            if owner != number or not flags & flag:
                return None
            at = address, int.from_bytes(port)
            before = found.get(at)
            found[at] = _Member(times + (before.slots if before else 0), flags, weight)
        return found

    def _source_ranges(self, number: int, wanted: Forwarding) -> Iterator[str]:
        layout = self._range
        before = _BYTE * (layout.offset("address") - layout.offset("service_id"))
        for network in wanted.source_ranges:
            key = layout.pack(
                prefix_length=before + network.prefix_length,
                service_id=number,
                address=network.address,
            )
            if self._maps["source_ranges"].lookup(key) is None:
                yield f"its source range {network} is missing"


def _counted_weights(wanted: Forwarding) -> dict[_End, int]:
    """Where a Service port goes by the number of connections."""
    if wanted.algorithm is not Algorithm.LEAST_CONNECTIONS:
        return {}
    found: dict[_End, int] = {}
    for backends, table in (
        (wanted.local, wanted.local_table),
        (wanted.cluster, wanted.cluster_table),  # it knows more weights
    ):
        weights = table.weights if table is not None and table.weights else (1,) * len(backends)
        for one, weight in zip(backends, weights, strict=True):
            found[one.address, one.port] = weight
    return found


def _turns(backends: tuple[Backend, ...], table: Table) -> dict[_End, int]:
    """How many slots each has, where they have them in turn."""
    unit = reduce(gcd, table.weights)
    return {
        (one.address, one.port): weight // unit
        for one, weight in zip(backends, table.weights, strict=True)
    }

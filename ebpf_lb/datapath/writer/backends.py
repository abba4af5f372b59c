"""Who serves: the map backends. Each belongs to one Service port and keeps its id while it does.

Where a Service goes by the number of connections, a backend that left keeps its id as long as it
has some: they count if it comes back, and what they count under is nobody else's (a later change of
the Service lets it go).
"""

import struct
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from itertools import repeat

from ebpf_lb.datapath.writer.batch import Rows, each, write
from ebpf_lb.datapath.writer.change import Change
from ebpf_lb.datapath.writer.family_maps import FamilyMaps
from ebpf_lb.datapath.writer.grace import Grace
from ebpf_lb.datapath.writer.pools import Ids, full
from ebpf_lb.datapath.writer.records import (
    FLAG_BITS,
    FLAGS,
    WEIGHT_AT,
    Backends,
    Record,
    pack_ids,
    unpack_ids,
)
from ebpf_lb.model.service import Algorithm
from ebpf_lb.plan.forwarding import Backend, Forwarding, Table

_INDEX = struct.Struct("=I")
_BYTE = 0xFF


class BackendTable:
    """Written before a set names them; cleared after the sets have let go."""

    def __init__(self, maps: FamilyMaps, stats: Counter[str], grace: Grace) -> None:
        self._table = maps.backends
        self._connections = maps.connections
        self._stats = stats
        self._grace = grace
        entries = maps.backends.max_entries
        self._ids = Ids(entries, full("backends", entries - 1))
        layout = maps.layout
        self._address_bytes = layout.family.address_bytes
        value = layout.struct("backend")
        self._value = value.raw("address", "port", "service_id", "flags", "weight")
        self._pack = self._value.pack
        self._nothing = bytes(value.size)
        flags = layout.enum("backend_flag")
        self._in_cluster = flags["BACKEND_IN_CLUSTER_SET"]
        self._in_local = flags["BACKEND_IN_LOCAL_SET"]
        self._on_node = flags["BACKEND_ON_NODE"]
        self._counted = flags["BACKEND_COUNTED"]

    def adopt(self, ids: Iterable[int]) -> None:
        """What is in use already."""
        self._ids.adopt(ids)

    @property
    def used(self) -> int:
        return self._ids.used

    def held(self, record: Record) -> Backends:
        """The Service port's backends, from the kernel: to remember them all would cost more memory
        than everything else together."""
        if not record.backends:
            return {}
        ids = unpack_ids(record.backends)
        first, count, table = min(ids), len(ids), self._table
        if max(ids) - first == count - 1:  # nearly always: one look for all
            size, values = len(self._nothing), table.slice(first, count)
            data = b"".join([values[(id_ - first) * size :][:size] for id_ in ids])
        else:
            data = b"".join([table.lookup(_INDEX.pack(id_)) or b"" for id_ in ids])
        return {
            address + port: number << FLAG_BITS | weight << WEIGHT_AT | flags
            for (address, port, _, flags, weight), number in zip(
                self._value.iter_unpack(data), ids, strict=True
            )
        }

    def serving(self, record: Record) -> set[tuple[bytes, int]]:
        """Address and port of the backends that are in a set."""
        size, sets = self._address_bytes, self._in_cluster | self._in_local
        return {
            (key[:size], int.from_bytes(key[size:]))
            for key, entry in self.held(record).items()
            if entry & sets
        }

    def take(self, forwarding: Forwarding, current: Backends) -> tuple[Backends, list[int]]:
        """Those to come, the cluster's first and in its order, and the ids that were taken for it;
        Exhausted, and none is taken, if they do not fit."""
        wanted = self._flags(forwarding)
        if not current:
            taken = self._ids.take(len(wanted))
            for key, number in zip(wanted, taken, strict=True):
                wanted[key] |= number << FLAG_BITS
            return wanted, taken
        fresh = [key for key in wanted if key not in current]
        taken = self._ids.take(len(fresh)) if fresh else []
        ids = dict(zip(fresh, taken, strict=True))
        for key in wanted:
            number = ids[key] if key in ids else current[key] >> FLAG_BITS
            wanted[key] |= number << FLAG_BITS
        return wanted, taken

    def give_back(self, ids: Iterable[int]) -> None:
        self._ids.give_back(ids)

    def _flags(self, forwarding: Forwarding) -> dict[bytes, int]:
        """Address and port -> flags."""
        in_cluster, in_local, on_node = self._in_cluster, self._in_local, self._on_node
        wanted = {
            address + port.to_bytes(2): in_cluster | on_node if local else in_cluster
            for address, port, local in forwarding.cluster
        }
        for address, port, local in forwarding.local:
            key = address + port.to_bytes(2)
            wanted[key] = wanted.get(key, 0) | in_local | (on_node if local else 0)
        if forwarding.algorithm is Algorithm.LEAST_CONNECTIONS:
            for backends, table in (
                (forwarding.cluster, forwarding.cluster_table),
                (forwarding.local, forwarding.local_table),
            ):
                for key, weight in _weights(backends, table):
                    if not wanted[key] & self._counted:  # the cluster's knows more weights
                        wanted[key] |= self._counted | weight << WEIGHT_AT
        return wanted

    def raise_up(self, changes: Iterable[Change]) -> None:
        """Writes those that are new, and flags that are to be had; none is taken away."""
        rows = []
        kept = self._in_cluster | self._in_local | self._counted
        changes = list(changes)
        each(changes, self._begin_to_count)
        for change in changes:
            if change.error:
                continue
            raised = change.backends
            if change.current:
                raised = {}
                for key, entry in change.backends.items():
                    held = change.current.get(key)
                    if held is None:
                        raised[key] = entry
                    elif held != (wider := entry | (held & kept)):
                        raised[key] = wider
            if raised:
                rows.append(self._rows(change, raised))
        self._write(rows)

    def _begin_to_count(self, change: Change) -> None:
        """From nothing, whatever was counted under the number before."""
        if change.forwarding.algorithm is not Algorithm.LEAST_CONNECTIONS:
            return
        held = change.current
        new = [n >> FLAG_BITS for key, n in change.backends.items()
               if not held.get(key, 0) & self._counted]  # fmt: skip
        if new:
            self._connections.update_batch(pack_ids(new), bytes(4 * len(new)))
            self._stats["connections"] += len(new)

    def lower(self, changes: Iterable[Change]) -> None:
        """Takes away flags that no longer hold, and the backends that left."""
        rows = []
        for change in changes:
            if change.current is change.backends or change.current == change.backends:
                continue
            lowered: Backends = {}
            for key, entry in change.current.items():
                wanted = change.backends.get(key)
                if wanted is None:
                    wanted = entry & ~FLAGS
                    if self._has_connections(entry):
                        wanted = entry & ~(self._in_cluster | self._in_local)
                if wanted != entry:
                    lowered[key] = wanted
            if lowered:
                rows.append(self._rows(change, lowered))
        self._write(rows)

    def let_go(self, change: Change) -> bool:
        """When they are lowered: those that left are free soon. Whether there are any."""
        if change.current is change.backends:
            return False
        gone = change.current.keys() - change.backends.keys()
        free = [key for key in gone if not change.current[key] & self._counted]
        if free:
            ids = [change.current.pop(key) >> FLAG_BITS for key in free]
            _note(change)
            self._grace.free(ids, self._clear)
        return bool(gone)

    def _has_connections(self, entry: int) -> bool:
        return bool(entry & self._counted) and any(
            self._connections.lookup(_INDEX.pack(entry >> FLAG_BITS)) or b""
        )

    def withdraw(self, record: Record) -> None:
        """They serve no more: UDP flows to them end now, not when their ids are given back."""
        pack, size = self._pack, self._address_bytes
        held = self.held(record)
        if held:
            self._table.update_batch(
                _ids(held),
                b"".join([pack(key[:size], key[size:], record.id, 0, 0) for key in held]),
            )
            self._stats["backends"] += len(held)

    def free(self, ids: Sequence[int]) -> None:
        """Nothing points to them any more."""
        self._grace.free(ids, self._clear)

    def _clear(self, ids: Sequence[int]) -> None:
        self._table.update_batch(pack_ids(ids), self._nothing * len(ids))
        self._stats["backends"] += len(ids)
        self._ids.give_back(ids)

    def _rows(self, change: Change, backends: Backends) -> "_Raised":
        size, service_id, pack = self._address_bytes, change.service_id, self._pack
        values = [
            pack(key[:size], key[size:], service_id, entry & _BYTE, entry >> WEIGHT_AT & _BYTE)
            for key, entry in backends.items()
        ]
        return Rows(change, len(values), _ids(backends), b"".join(values)), backends

    def _write(self, raised: Sequence["_Raised"]) -> None:
        of_change = {id(rows.change): (rows, backends) for rows, backends in raised}

        def written(change: Change, count: int) -> None:
            self._stats["backends"] += count
            rows, backends = of_change[id(change)]
            if backends is change.backends and count == len(backends):
                change.current = backends
                change.taken_backend_ids.clear()
                change.record.backends = rows.keys
                return
            for key in list(backends)[:count]:
                change.current[key] = backends[key]
                change.taken_backend_ids.discard(backends[key] >> FLAG_BITS)
            _note(change)

        write(self._table, [rows for rows, _ in raised], written)


_Raised = tuple[Rows, Backends]


def _weights(backends: Sequence[Backend], table: Table | None) -> Iterator[tuple[bytes, int]]:
    """By address and port; equal ones are 1."""
    weights = table.weights if table is not None and table.weights else repeat(1)
    for (address, port, _), weight in zip(backends, weights, strict=False):
        yield address + port.to_bytes(2), weight


def _ids(backends: Backends) -> bytes:
    return pack_ids([entry >> FLAG_BITS for entry in backends.values()])


def _note(change: Change) -> None:
    """The record says what is there."""
    ids, record = _ids(change.current), change.record
    record.backends = record.cluster_ids if ids == record.cluster_ids else ids

"""Who serves: service ids, backends, slots, and the services' words.

A change is prepared (ids and regions are taken, nothing is written), then built up (backends,
slots, words), and, when the frontends are right, what is not needed any more is cleared.
"""

import math
import struct
from collections import Counter, deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace

from ebpf_lb.datapath.libbpf import BatchError
from ebpf_lb.datapath.writer.content import Content
from ebpf_lb.datapath.writer.family_maps import FamilyMaps
from ebpf_lb.datapath.writer.pools import Exhausted, Ids, full
from ebpf_lb.datapath.writer.records import (
    Backends,
    Record,
    pack_ids,
    region_of,
    unpack_ids,
)
from ebpf_lb.datapath.writer.slots import Slots
from ebpf_lb.plan.forwarding import Forwarding

GRACE_S = 1.0  # how long what was freed stays as it is: far longer than a program runs

_INDEX = struct.Struct("=I")
_UNKNOWN = b"?"  # no content's mark: a region that is being changed


@dataclass(slots=True)
class Change:
    """What one Service port is to become, with everything taken that it needs.

    backends: flags and ids of those to come. The words and contents are those to come, too.
    lacking: why its tables are left out; "" if they are not.
    """

    record: Record
    service_id: int
    current: Backends
    backends: Backends
    cluster: int
    local: int
    contents: dict[str, Content]
    timeout_and_flags: int
    unused_service_ids: list[int] = field(default_factory=list)
    unused_backend_ids: set[int] = field(default_factory=set)
    unused_regions: set[int] = field(default_factory=set)
    lacking: str = ""


@dataclass(frozen=True, slots=True)
class _Freed:
    """What nothing points to any more, and when it may be given out again."""

    due: float
    service_ids: tuple[int, ...]
    backend_ids: tuple[int, ...]
    regions: tuple[int, ...]  # words


class Services:
    """The maps services, slots and backends. Arguments as of FamilyWriter."""

    def __init__(
        self,
        maps: FamilyMaps,
        stats: Counter[str],
        clock: Callable[[], float],
        ticks_per_second: float,
    ) -> None:
        self._maps = maps
        self._stats = stats
        self._clock = clock
        self._ticks_per_second = ticks_per_second
        self._freed: deque[_Freed] = deque()
        services, backends = min(maps.services.count, 1 << 16), maps.backends.max_entries
        self._service_ids = Ids(services, full("services", services - 1))
        self._backend_ids = Ids(backends, full("backends", backends - 1))
        self._slots = Slots(maps, stats)
        layout = maps.layout
        self._address_bytes = layout.family.address_bytes
        value = layout.struct("backend")
        self._backend = value.raw("address", "port", "service_id", "flags")
        self._pack_backend = self._backend.pack
        self._no_backend = bytes(value.size)
        service = layout.struct("service")
        self._region_at = {which: service.offset(which) for which in ("cluster", "local")}
        self._third_at = service.offset("affinity_timeout")
        if self._third_at % 8 or service.offset("flags") != self._third_at + 4:
            raise TypeError("struct service: affinity_timeout and flags are no longer one word")
        flags = layout.enum("backend_flag")
        self._in_cluster = flags["BACKEND_IN_CLUSTER_SET"]
        self._in_local = flags["BACKEND_IN_LOCAL_SET"]
        self._on_node = flags["BACKEND_ON_NODE"]
        self._has_any = layout.enum("service_flag")["SERVICE_HAS_ANY"] << 32
        self._shared_words: dict[int, int] = {}

    def adopt(
        self, service_ids: Iterable[int], backend_ids: Iterable[int], regions: Iterable[int]
    ) -> None:
        """What is in use already; ValueError if regions overlap."""
        self._service_ids.adopt(service_ids)
        self._backend_ids.adopt(backend_ids)
        self._slots.adopt(regions)
        self._freed.clear()

    def occupancy(self) -> dict[str, int]:
        """Elements that are given out, by map."""
        return {
            "services": self._service_ids.used,
            "backends": self._backend_ids.used,
            "slots": self._slots.used,
        }

    # -- prepare: nothing is written ------------------------------------------------------------

    def prepare(self, record: Record, forwarding: Forwarding) -> Change:
        """Takes what the change needs; Exhausted, and nothing is taken, if it does not fit. Where
        only its tables do not, they are left out."""
        try:
            return self._prepare(record, forwarding)
        except Exhausted:
            self.housekeeping(self._clock())  # maybe it is only not given back yet
        try:
            return self._prepare(record, forwarding)
        except Exhausted as error:
            if forwarding.cluster_table is None and forwarding.local_table is None:
                raise
            plain = replace(forwarding, cluster_table=None, local_table=None)
            change = self._prepare(record, plain)
            change.lacking = error.what
            return change

    def _prepare(self, record: Record, forwarding: Forwarding) -> Change:
        current = self._held(record)
        wanted = self._flags(forwarding)
        service_ids = [] if record.id else self._service_ids.take(1)
        backend_ids: list[int] = []
        try:
            fresh = [key for key in wanted if key not in current]
            if fresh:
                backend_ids = self._backend_ids.take(len(fresh))
            ids = dict(zip(fresh, backend_ids, strict=True))
            backends = {
                key: (flags, ids[key] if key in ids else current[key][1])
                for key, flags in wanted.items()
            }
            change = Change(
                record=record,
                service_id=record.id or service_ids[0],
                current=current,
                backends=backends,
                cluster=record.cluster,
                local=record.local,
                contents={
                    "cluster": Content.of(forwarding.cluster, forwarding.cluster_table, backends),
                    "local": Content.of(forwarding.local, forwarding.local_table, backends),
                },
                timeout_and_flags=self._timeout_and_flags(forwarding),
                unused_service_ids=service_ids,
                unused_backend_ids=set(backend_ids),
            )
            for which, content in change.contents.items():
                if content.mark != getattr(record, f"{which}_ids"):
                    self._place(change, which, content)
            return change
        except Exhausted:
            self._service_ids.give_back(service_ids)
            self._backend_ids.give_back(backend_ids)
            raise

    def _place(self, change: Change, which: str, content: Content) -> None:
        """Where the new content is to stand."""
        held: int = getattr(change.record, which)
        if content.table is None or region_of(held)[1] != content.size:
            word = self._region(change, content.size, table=content.table is not None)
            setattr(change, which, word)

    def _region(self, change: Change, size: int, *, table: bool) -> int:
        if not size:
            return 0
        try:
            word = self._slots.take(size, table=table)
        except Exhausted:
            self._slots.give_back(change.unused_regions)
            raise
        change.unused_regions.add(word)
        return word

    def _flags(self, forwarding: Forwarding) -> dict[bytes, int]:
        """Address and port -> flags."""
        wanted: dict[bytes, int] = {}
        for backends, flag in (
            (forwarding.cluster, self._in_cluster),
            (forwarding.local, self._in_local),
        ):
            for backend in backends:
                key = backend.address + backend.port.to_bytes(2)
                on_node = self._on_node if backend.local else 0
                wanted[key] = wanted.get(key, 0) | flag | on_node
        return wanted

    def _timeout_and_flags(self, forwarding: Forwarding) -> int:
        ticks = math.ceil(forwarding.affinity_timeout_s * self._ticks_per_second)
        return ticks | (self._has_any if forwarding.has_any else 0)

    def give_back(self, change: Change) -> None:
        """Returns what was taken and, in the end, not used."""
        self._service_ids.give_back(change.unused_service_ids)
        self._backend_ids.give_back(change.unused_backend_ids)
        self._slots.give_back(change.unused_regions)
        change.unused_service_ids, change.unused_backend_ids = [], set()
        change.unused_regions = set()

    # -- write -----------------------------------------------------------------------------------

    def clear_words(self, number: int) -> None:
        """Empties a service's entry, whatever its id meant before."""
        for offset in (*self._region_at.values(), self._third_at):
            if self._maps.services.load(number, offset):
                self._maps.services.store(number, offset, 0)
                self._stats["services"] += 1

    def assign(self, change: Change) -> None:
        """The id taken is the record's from now on."""
        change.record.id = change.service_id
        change.unused_service_ids = []

    # rule: CP-3
    def build_up(self, change: Change) -> None:
        """Writes what is new and points to it; nothing that is in use changes."""
        on_node = self._on_node
        raised: Backends = {}
        for key, (flags, number) in change.backends.items():
            held = change.current.get(key)
            if held is None:
                raised[key] = (flags, number)
            elif held[0] != (wider := flags | (held[0] & ~on_node)):
                raised[key] = (wider, number)
        if raised:
            self._write_backends(change, raised)
        record, third = change.record, change.timeout_and_flags
        # with no endpoint at all REJECT must not wait for the sets, and the other way round
        if not third & self._has_any:
            self._store_third(record, third)
        self._point(change, "cluster")
        self._point(change, "local")
        self._store_third(record, third)

    def clear(self, change: Change) -> bool:
        """Takes flags away that no longer hold, and the backends that left; whether any did."""
        lowered: Backends = {}
        gone: list[bytes] = []
        for key, (flags, number) in change.current.items():
            held = change.backends.get(key)
            if held is None:
                lowered[key] = (0, number)
                gone.append(key)
            elif held[0] != flags:
                lowered[key] = held
        if not lowered:
            return False
        self._write_backends(change, lowered)
        if gone:
            ids = [change.current.pop(key)[1] for key in gone]
            self._note_backends(change)
            self.free(backend_ids=ids)
        return bool(gone)

    def serving(self, record: Record) -> set[tuple[bytes, int]]:
        """Address and port of the backends that are in a set."""
        size, sets = self._address_bytes, self._in_cluster | self._in_local
        return {
            (key[:size], int.from_bytes(key[size:]))
            for key, (flags, _) in self._held(record).items()
            if flags & sets
        }

    # rule: CP-3
    def withdraw(self, record: Record) -> None:
        """Its backends serve no more: UDP flows to them end now, not when their ids are given
        back."""
        pack, size = self._pack_backend, self._address_bytes
        held = self._held(record)
        if held:
            self._maps.backends.update_batch(
                b"".join([_INDEX.pack(number) for _, number in held.values()]),
                b"".join([pack(key[:size], key[size:], record.id, 0) for key in held]),
            )
            self._stats["backends"] += len(held)

    def release(self, record: Record) -> None:
        """Nothing points to the Service port any more: its ids and regions go, in a second."""
        backends = unpack_ids(record.backends)
        self.free([record.id], backends, (record.cluster, record.local))

    def free(
        self,
        service_ids: Iterable[int] = (),
        backend_ids: Iterable[int] = (),
        regions: Iterable[int] = (),
    ) -> None:
        """Gives these back after the grace time."""
        words = tuple(word for word in regions if word)
        due = self._clock() + GRACE_S
        self._freed.append(_Freed(due, tuple(service_ids), tuple(backend_ids), words))

    def housekeeping(self, now: float) -> None:
        """Clears what was freed a second ago and gives it out again."""
        while self._freed and self._freed[0].due <= now:
            freed = self._freed[0]
            if freed.backend_ids:
                keys = b"".join(map(_INDEX.pack, freed.backend_ids))
                self._maps.backends.update_batch(keys, self._no_backend * len(freed.backend_ids))
                self._stats["backends"] += len(freed.backend_ids)
            for number in freed.service_ids:
                self.clear_words(number)
                self._clear_counters(number)
            for word in freed.regions:
                self._slots.clear(word)
            self._service_ids.give_back(freed.service_ids)
            self._backend_ids.give_back(freed.backend_ids)
            self._slots.give_back(freed.regions)
            self._freed.popleft()

    def _write_backends(self, change: Change, backends: Backends) -> None:
        """Writes backends and notes in the record how far that came."""
        size, service_id = self._address_bytes, change.service_id
        pack = self._pack_backend
        keys = b"".join([_INDEX.pack(number) for _, number in backends.values()])
        values = b"".join(
            [
                pack(key[:size], key[size:], service_id, flags)
                for key, (flags, _) in backends.items()
            ]
        )
        done = 0
        try:
            self._maps.backends.update_batch(keys, values)
            done = len(backends)
        except BatchError as error:
            done = error.done
            raise
        finally:
            self._stats["backends"] += done
            for key, value in list(backends.items())[:done]:
                change.current[key] = value
                change.unused_backend_ids.discard(value[1])
            self._note_backends(change)

    def _held(self, record: Record) -> Backends:
        """The Service port's backends, from the kernel: to remember them all would cost more memory
        than everything else together."""
        ids = unpack_ids(record.backends)
        if not ids:
            return {}
        first, count, table = min(ids), len(ids), self._maps.backends
        if max(ids) - first == count - 1:  # nearly always: one look for all
            size, values = len(self._no_backend), table.slice(first, count)
            data = b"".join([values[(id_ - first) * size :][:size] for id_ in ids])
        else:
            data = b"".join([table.lookup(_INDEX.pack(id_)) or b"" for id_ in ids])
        return {
            address + port: (flags, number)
            for (address, port, _, flags), number in zip(
                self._backend.iter_unpack(data), ids, strict=True
            )
        }

    def _note_backends(self, change: Change) -> None:
        ids = pack_ids([number for _, number in change.current.values()])
        record = change.record
        record.backends = record.cluster_ids if ids == record.cluster_ids else ids

    def _point(self, change: Change, which: str) -> None:
        """Fills the new region of a set, and points to it in one store.

        A table of the same size is changed where it stands: few of its slots differ, and any
        mixture of the old one and the new one leads to backends that are there.
        """
        record, ids, content = change.record, f"{which}_ids", change.contents[which]
        if content.mark == getattr(record, ids):
            return
        word, old = getattr(change, which), getattr(record, which)
        if word and word == old:
            setattr(record, ids, _UNKNOWN)
            self._slots.rewrite(word, content.slots())
            setattr(record, ids, content.mark)
            return
        if word:
            self._slots.write((word,), content.slots())
        self._maps.services.store(record.id, self._region_at[which], word)
        self._stats["services"] += 1
        change.unused_regions.discard(word)
        setattr(record, which, word)
        mark = content.mark
        setattr(record, ids, record.backends if mark == record.backends else mark)
        if old:
            self.free(regions=(old,))

    def _store_third(self, record: Record, word: int) -> None:
        if word != record.timeout_and_flags:
            self._maps.services.store(record.id, self._third_at, word)
            record.timeout_and_flags = self._shared_word(word)
            self._stats["services"] += 1

    def _shared_word(self, word: int) -> int:
        """Most Services have the same time-out and flags: one number for all of them."""
        return self._shared_words.setdefault(word, word)

    def _clear_counters(self, number: int) -> None:
        key = _INDEX.pack(number)
        counters = self._maps.service_counters.lookup(key)
        if counters and any(counters):
            self._maps.service_counters.update(key, bytes(len(counters)))
            self._stats["service_counters"] += 1

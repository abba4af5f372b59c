"""Whom a Service port chooses from: its sets of backends in `slots`, its words in `services`."""

import math
import struct
from collections import Counter
from collections.abc import Iterable, Sequence

from ebpf_lb.datapath.layout.region import region_of
from ebpf_lb.datapath.writer.batch import Rows, each, write
from ebpf_lb.datapath.writer.change import Change, SetChange
from ebpf_lb.datapath.writer.content import Content
from ebpf_lb.datapath.writer.family_maps import FamilyMaps
from ebpf_lb.datapath.writer.grace import Grace
from ebpf_lb.datapath.writer.pools import Ids, full
from ebpf_lb.datapath.writer.records import Record
from ebpf_lb.datapath.writer.slots import Slots
from ebpf_lb.model.service import Algorithm
from ebpf_lb.plan.forwarding import Forwarding

_INDEX = struct.Struct("=I")
_UNKNOWN = b"?"  # no content's mark: a region that is being changed


class ServiceTable:
    """The maps services and slots: a set is switched by one store, when its slots are written.

    ticks_per_second: of the data path's clock, see bpf/ground/layout.h.
    """

    def __init__(
        self, maps: FamilyMaps, stats: Counter[str], grace: Grace, ticks_per_second: float
    ) -> None:
        self._maps = maps
        self._stats = stats
        self._grace = grace
        self._ticks_per_second = ticks_per_second
        services = min(maps.services.count, 1 << 16)
        self._ids = Ids(services, full("services", services - 1))
        self._slots = Slots(maps, stats)
        layout = maps.layout
        service = layout.struct("service")
        self._region_at = {which: service.offset(which) for which in ("cluster", "local")}
        self._third_at = service.offset("affinity_timeout")
        if self._third_at % 8 or service.offset("flags") != self._third_at + 4:
            raise TypeError("struct service: affinity_timeout and flags are no longer one word")
        flags = layout.enum("service_flag")
        self._has_any = flags["SERVICE_HAS_ANY"] << 32
        self._algorithms = {one: flags.get(f"SERVICE_{one.name}", 0) << 32 for one in Algorithm}
        self._shared_words: dict[int, int] = {}

    def adopt(self, ids: Iterable[int], words: Iterable[int]) -> None:
        """What is in use already; ValueError if regions overlap."""
        self._ids.adopt(ids)
        self._slots.adopt(words)

    def put_back(self, record: Record) -> None:
        """A service's words, where they are not as they were written."""
        words = {offset: getattr(record, which) for which, offset in self._region_at.items()}
        for offset, word in (words | {self._third_at: record.timeout_and_flags}).items():
            if self._maps.services.load(record.id, offset) != word:
                self._maps.services.store(record.id, offset, word)
                self._stats["services"] += 1

    def occupancy(self) -> dict[str, int]:
        """Elements that are given out, by map."""
        return {"services": self._ids.used, "slots": self._slots.used}

    # -- before anything is written --------------------------------------------------------------

    def take_id(self) -> int:
        """Exhausted if there is none."""
        return self._ids.take(1)[0]

    def take_regions(self, change: Change) -> None:
        """Where new sets are to stand. Exhausted: `give_back` returns what was taken so far."""
        forwarding, record = change.forwarding, change.record
        for which, backends, table in (
            ("cluster", forwarding.cluster, forwarding.cluster_table),
            ("local", forwarding.local, forwarding.local_table),
        ):
            held: bytes = getattr(record, f"{which}_ids")
            if not backends and not held:
                continue
            in_order = which == "cluster" or not forwarding.cluster
            content = Content.of(backends, table, change.backends, in_order=in_order)
            if content.mark == held:
                continue
            word: int = getattr(record, which)
            # a table of the same size is changed where it stands
            if content.table is None or region_of(word)[1] != content.size:
                word = 0
                if content.size:
                    word = self._slots.take(content.size, table=content.table is not None)
                    change.taken_regions.add(word)
            change.sets.append(SetChange(which, content, word))

    def give_back(self, ids: Iterable[int], words: Iterable[int]) -> None:
        """What was taken and not used."""
        self._ids.give_back(ids)
        self._slots.give_back(words)

    def timeout_and_flags(self, forwarding: Forwarding) -> int:
        """Their word."""
        ticks = math.ceil(forwarding.affinity_timeout_s * self._ticks_per_second)
        has_any = self._has_any if forwarding.has_any else 0
        return ticks | has_any | self._algorithms[forwarding.algorithm]

    # -- writing -----------------------------------------------------------------------------------

    def clear_words(self, number: int) -> None:
        """Empties a service's entry, whatever its id meant before."""
        for offset in (*self._region_at.values(), self._third_at):
            if self._maps.services.load(number, offset):
                self._maps.services.store(number, offset, 0)
                self._stats["services"] += 1

    def fill_regions(self, changes: Iterable[Change]) -> None:
        """New sets, in regions that nothing points to."""
        rows = []
        for change in changes:
            words = [one.word for one in change.sets if one.word in change.taken_regions]
            if words:
                ids = b"".join([one.content.slots() for one in change.sets if one.word in words])
                rows.append(Rows(change, len(ids) // 4, self._slots.keys(words), ids))
        write(self._maps.slots, rows, self._note_slots)

    def _note_slots(self, change: Change, count: int) -> None:
        self._stats["slots"] += count

    def point(self, changes: Iterable[Change]) -> None:
        """To the new sets, each by one store; and all else that is in a service's words."""
        each(changes, self._store)

    def _store(self, change: Change) -> None:
        # with no endpoint at all REJECT must not wait for the sets, and the other way round
        if not change.timeout_and_flags & self._has_any:
            self._store_third(change)
        for one in change.sets:
            self._point(change, one)
        self._store_third(change)

    def _point(self, change: Change, wanted: SetChange) -> None:
        record, which, word = change.record, wanted.which, wanted.word
        ids, old = f"{which}_ids", getattr(record, which)
        mark = wanted.content.mark
        if word and word == old:
            # few of its slots differ, and any mixture leads to backends that are there
            setattr(record, ids, _UNKNOWN)
            self._slots.rewrite(word, wanted.content.slots())
            setattr(record, ids, mark)
            return
        self._maps.services.store(record.id, self._region_at[which], word)
        self._stats["services"] += 1
        change.taken_regions.discard(word)
        setattr(record, which, word)
        setattr(record, ids, record.backends if mark == record.backends else mark)
        if old:
            self._grace.free((old,), self._clear_regions)

    def _store_third(self, change: Change) -> None:
        record, word = change.record, change.timeout_and_flags
        if word != record.timeout_and_flags:
            self._maps.services.store(record.id, self._third_at, word)
            # most Services have the same time-out and flags: one number for all of them
            record.timeout_and_flags = self._shared_words.setdefault(word, word)
            self._stats["services"] += 1

    def free(self, ids: Sequence[int], words: Iterable[int]) -> None:
        """Nothing points to these any more."""
        self._grace.free(ids, self._clear_services)
        self._grace.free([word for word in words if word], self._clear_regions)

    def _clear_services(self, ids: Sequence[int]) -> None:
        for number in ids:
            self.clear_words(number)
            self._clear_counters(number)
        self._ids.give_back(ids)

    def _clear_regions(self, words: Sequence[int]) -> None:
        for word in words:
            self._slots.clear(word)
        self._slots.give_back(words)

    def _clear_counters(self, number: int) -> None:
        key = _INDEX.pack(number)
        counters = self._maps.service_counters.lookup(key)
        if counters and any(counters):
            self._maps.service_counters.update(key, bytes(len(counters)))
            self._stats["service_counters"] += 1

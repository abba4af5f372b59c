"""Writes Service ports of one family into the maps.

At no instant may a look-up find a frontend whose name, service, slots or backends are missing. So:

    name, source ranges, backends, slots, the service's words, filter bit, frontends,
    the rest of a ClusterIP (UNSERVED)

and the other way round for what goes. What a program may still hold when it goes (an id, a region)
is left as it is for a second; `housekeeping` then clears it and gives it out again.

The records mirror what the kernel holds, step by step: each changes when its write has succeeded.
So after any failure they are true, and the next `set` writes what is missing.
"""

import struct
from collections.abc import Callable, Collection, Iterable

from ebpf_lb.datapath.writer.adopt import read_back
from ebpf_lb.datapath.writer.family_maps import FamilyMaps
from ebpf_lb.datapath.writer.fill import NewFrontends, NewServices
from ebpf_lb.datapath.writer.names import NotHashed, NotProgrammed, format_name
from ebpf_lb.datapath.writer.node import NodeTables
from ebpf_lb.datapath.writer.pools import Exhausted
from ebpf_lb.datapath.writer.records import Record, pack_ids, region_of, unpack_ids
from ebpf_lb.datapath.writer.services import Change
from ebpf_lb.datapath.writer.source_ranges import SourceRanges
from ebpf_lb.errors import UserError
from ebpf_lb.model.values import Protocol
from ebpf_lb.plan.forwarding import Forwarding, ServicePortName
from ebpf_lb.plan.room import Demand

_INDEX = struct.Struct("=I")
_KEPT_BACK_SHARE = 32


class FamilyWriter(NodeTables):
    """The only writer of one family's maps.

    clock: monotonic seconds. ticks_per_second: of the data path's clock, see bpf/ground/layout.h.
    """

    def __init__(
        self, maps: FamilyMaps, clock: Callable[[], float], ticks_per_second: float
    ) -> None:
        super().__init__(maps)
        self.family = maps.layout.family
        self.udp_departures = 0
        """How often backends of a UDP Service port ceased to serve since the start."""
        self._records: dict[ServicePortName, Record] = {}
        self._by_id: dict[int, Record] = {}
        self._stray_ids: set[int] = set()
        self._stray_names: list[int] = []
        self._stray_backend_ids: list[int] = []
        self._stray_regions: list[int] = []
        self._pack_name = maps.layout.struct("service_name").pack
        self._services = NewServices(maps, self.stats, clock, ticks_per_second)
        self._frontends = NewFrontends(maps, self._by_id, self.stats, self._set_filter_bit)
        self._ranges = SourceRanges(maps, self.stats)

    def adopt(self) -> None:
        """Reads back what the kernel holds, so that only differences are written. Writes nothing.

        UserError if the maps contradict each other.
        """
        found = read_back(self._maps)
        records = found.records.values()
        self._by_id.clear()
        self._by_id.update(found.records)
        self._records = {record.name: record for record in records}
        words = [word for record in records for word in (record.cluster, record.local) if word]
        # strays keep their ids until `retain` has removed what mentions them
        unpack_value = self._maps.layout.struct("frontend").unpack
        unpack_range = self._maps.layout.struct("source_range_key").unpack
        mentioned = {
            *found.stray_service_ids,
            *found.stray_names,
            *(unpack_value(value).service_id for value in found.stray_frontends.values()),
            *(unpack_range(key).service_id for key in found.stray_ranges),
        }
        # frontends of an earlier build may lead beyond the end of an array that has become smaller
        stray_ids = {number for number in mentioned if number < self._maps.services.count}
        self._stray_ids = stray_ids
        self._stray_names = found.stray_names
        self._stray_backend_ids = found.stray_backend_ids
        try:
            self._services.adopt(
                [*found.records, *stray_ids],
                [*found.backend_ids, *found.stray_backend_ids],
                words,
            )
        except ValueError as error:
            raise UserError(
                f"The {self.family.directory} maps contradict each other ({error}): "
                "run `ebpf-lb cleanup` and start the agent again."
            ) from error
        self._frontends.adopt(records, found.unserved, found.stray_frontends)
        self._ranges.adopt(records, found.stray_ranges)

    def serving(self, service_id: int) -> set[tuple[bytes, int]]:
        """Address and port of the backends that a Service port sends new connections to; none if
        there is no such Service port."""
        record = self._by_id.get(service_id)
        return self._services.serving(record) if record else set()

    def names(self) -> list[ServicePortName]:
        """The Service ports that the kernel holds something for."""
        return list(self._records)

    def service_id(self, name: ServicePortName) -> int | None:
        """The id under which programs count this Service port."""
        record = self._records.get(name)
        return record.id if record else None

    def occupancy(self) -> dict[str, int]:
        """How many elements are in use of the arrays that the writer gives out from."""
        return self._services.occupancy()

    def capacities(self) -> Demand:
        """What there is room for. Of backends and slots some are kept back: what changes needs new
        ones before the old ones are free."""
        maps = self._maps
        backends, slots = maps.backends.max_entries, maps.slots.max_entries
        return Demand(
            min(maps.services.count, maps.names.max_entries + 1) - 1,
            maps.frontends.max_entries,
            backends - 1 - backends // _KEPT_BACK_SHARE,
            slots - slots // _KEPT_BACK_SHARE,
            maps.source_ranges.max_entries,
        )

    def demand_of(self, name: ServicePortName) -> Demand | None:
        """What a Service port has of it; None if there is no such Service port."""
        record = self._records.get(name)
        if record is None:
            return None
        slots = sum(region_of(word)[1] for word in (record.cluster, record.local))
        frontends = self._frontends.held(record)
        return Demand(1, frontends, len(record.backends) // 4, slots, len(record.ranges))

    def set(self, forwarding: Forwarding) -> None:
        """Creates or changes one Service port; writes only the difference.

        NotProgrammed if it does not fit; what was there before goes on then. NotHashed if only its
        tables do not.
        """
        name = forwarding.name
        record = self._records.get(name) or Record(name, 0)
        change: Change | None = None
        try:
            change = self._services.prepare(record, forwarding)
            frontends = self._frontends.wanted(forwarding, change.service_id)
            ranges = self._ranges.wanted(forwarding, change.service_id)
            self._frontends.check_room(record, frontends)
            self._ranges.check_room(record, ranges)
            if not record.id:
                self._begin(change)
            self._ranges.add(record, ranges)
            self._services.build_up(change)
            self._frontends.change(record, frontends)
            self._ranges.remove_others(record, ranges)
            if self._services.clear(change):
                self._note_departure(name)
        except Exhausted as error:
            raise NotProgrammed(name, self.family, error.what) from error
        except OSError as error:
            raise NotProgrammed(name, self.family, _reason(error)) from error
        finally:
            if change is not None:
                self._services.give_back(change)
        if change.lacking:
            raise NotHashed(name, self.family, change.lacking)

    def set_all(self, forwardings: Iterable[Forwarding]) -> list[NotProgrammed]:
        """Sets many Service ports, new ones by few calls; the reasons of those that do not fit."""
        refused = []
        for forwarding in self._fill(forwardings):
            try:
                self.set(forwarding)
            except NotProgrammed as error:
                refused.append(error)
        return refused

    def delete(self, name: ServicePortName) -> None:
        """Removes a Service port; nothing happens if there is none."""
        record = self._records.get(name)
        if record is None:
            return
        try:
            self._frontends.change(record, {})
            self._ranges.remove_others(record, ())
            self._services.withdraw(record)
            self._delete_name(record.id)
        except OSError as error:
            raise NotProgrammed(name, self.family, f"removing: {_reason(error)}") from error
        del self._records[record.name]
        del self._by_id[record.id]
        self._services.release(record)
        self._note_departure(name)

    def retain(self, names: Collection[ServicePortName]) -> None:
        """Removes all Service ports but these, and whatever belongs to none."""
        wanted = set(names)
        for name in [name for name in self._records if name not in wanted]:
            self.delete(name)
        self._frontends.remove_strays()
        self._ranges.remove_strays()
        while self._stray_names:
            self._delete_name(self._stray_names[-1])
            self._stray_names.pop()
        if self._stray_ids or self._stray_backend_ids:
            self._services.free(self._stray_ids, self._stray_backend_ids, self._stray_regions)
            self._stray_ids, self._stray_backend_ids, self._stray_regions = set(), [], []

    def housekeeping(self, now: float) -> None:
        """Clears what was freed a second ago and gives it out again. Call it every second or so."""
        self._services.housekeeping(now)

    def _fill(self, forwardings: Iterable[Forwarding]) -> list[Forwarding]:
        """Writes those that are new, all or none of them; what is left to do."""
        fresh: dict[ServicePortName, Forwarding] = {}
        names: list[bytes] = []
        taken: set[bytes] = set()
        left = []
        for forwarding in forwardings:
            name = forwarding.name
            keys = self._frontends.keys(forwarding)
            new = name not in self._records and name not in fresh and _is_plain(forwarding)
            if not new or not taken.isdisjoint(keys) or not self._frontends.unclaimed(keys):
                left.append(forwarding)
                continue
            try:
                names.append(self._pack_name(text=format_name(name)))
            except TypeError:  # too long; `set` says so
                left.append(forwarding)
                continue
            fresh[name] = forwarding
            taken.update(keys)
        wanted = list(fresh.values())
        return left if self._write_fresh(wanted, names) else [*wanted, *left]

    def _write_fresh(self, wanted: list[Forwarding], names: list[bytes]) -> bool:
        """All of them, or False."""
        if not wanted:
            return True
        try:
            fresh = self._services.take_many(wanted)
        except Exhausted:
            return False
        records = [one.record for one in fresh]
        ids = pack_ids([record.id for record in records])
        try:
            self._maps.names.update_batch(ids, b"".join(names))
            self.stats["names"] += len(records)
            self._services.write_many(fresh)
            self._frontends.write_many(fresh)
        except (Exhausted, OSError):
            # frontends may be there already: what they lead to stays until `retain` removes them
            for record in records:
                self._stray_names.append(record.id)
                self._stray_ids.add(record.id)
                self._stray_backend_ids += unpack_ids(record.backends)
                self._stray_regions += (record.cluster, record.local)
            return False
        self._records.update((record.name, record) for record in records)
        self._by_id.update((record.id, record) for record in records)
        return True

    def _begin(self, change: Change) -> None:
        """A Service port that was not there: its name, and empty words."""
        record = change.record
        text = format_name(record.name)
        try:
            value = self._pack_name(text=text)
        except TypeError as error:
            raise Exhausted(f"its name is too long ({len(text)} characters)") from error
        self._services.clear_words(change.service_id)
        self._maps.names.update(_INDEX.pack(change.service_id), value)
        self.stats["names"] += 1
        self._services.assign(change)
        self._records[record.name] = record
        self._by_id[record.id] = record

    def _note_departure(self, name: ServicePortName) -> None:
        if name.protocol is Protocol.UDP:
            self.udp_departures += 1

    def _delete_name(self, number: int) -> None:
        if self._maps.names.delete(_INDEX.pack(number)):
            self.stats["names"] += 1


def _is_plain(forwarding: Forwarding) -> bool:
    """Nothing but names, backends, a slot each, words and frontends."""
    return not (forwarding.source_ranges or forwarding.cluster_table or forwarding.local_table)


def _reason(error: OSError) -> str:
    return error.strerror or str(error)

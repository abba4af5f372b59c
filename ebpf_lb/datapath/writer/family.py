"""Writes one family's Service ports, few or many, always in the same way.

Each becomes a `Change`: what the plan wants, against what the kernel holds, with everything taken
that it needs and room for all its entries, before anything is written. Then the tables write their
parts of all changes at once, in this order. One change is a batch of one.

    what appears                                   what goes
    1 names                                        8 ClusterIPs' other ports, frontends
    2 source ranges                                9 source ranges
    3 backends                                    10 backends, and flags that no longer hold
    4 slots of new sets                           11 names
    5 the service's words: one store a set
    6 frontends, their filter bits before them
    7 ClusterIPs' other ports (UNSERVED)

At no instant may a look-up find a frontend whose name, service, slots or backends are missing: so
whatever is pointed to is written before the pointer, and removed after it. What a program may still
hold when it goes (an id, a region of slots) rests as it is for a second (grace.py); `housekeeping`
then clears it and gives it out again.

States. The records mirror what the kernel holds, step by step: each changes when its write has
succeeded. So after any failure they are true, and the next `write` of that Service port writes what
is missing. A Service port is in the records from its name on. What an agent that died left behind
and no record explains are strays: they keep their ids until `retain` removed what mentions them.
"""

from collections import Counter
from collections.abc import Callable, Collection, Iterable
from contextlib import suppress

from ebpf_lb.datapath.layout.region import region_of
from ebpf_lb.datapath.writer.adopt import Found, read_back
from ebpf_lb.datapath.writer.backends import BackendTable
from ebpf_lb.datapath.writer.batch import each, reason
from ebpf_lb.datapath.writer.change import Change
from ebpf_lb.datapath.writer.family_maps import FamilyMaps
from ebpf_lb.datapath.writer.filter import VipFilter
from ebpf_lb.datapath.writer.frontends import FrontendTable
from ebpf_lb.datapath.writer.grace import Grace
from ebpf_lb.datapath.writer.names import NameTable, NotHashed, NotProgrammed
from ebpf_lb.datapath.writer.node import NodeTables
from ebpf_lb.datapath.writer.pools import Exhausted
from ebpf_lb.datapath.writer.records import Record, unpack_ids
from ebpf_lb.datapath.writer.sets import ServiceTable
from ebpf_lb.datapath.writer.source_ranges import SourceRangeTable
from ebpf_lb.errors import UserError
from ebpf_lb.model.values import Protocol
from ebpf_lb.plan.forwarding import Forwarding, ServicePortName
from ebpf_lb.plan.room import Demand

_KEPT_BACK_SHARE = 32


class FamilyWriter:
    """The only writer of one family's maps; those about the node itself are `node`'s part.

    clock: monotonic seconds. ticks_per_second: of the data path's clock, see bpf/ground/layout.h.
    """

    def __init__(
        self, maps: FamilyMaps, clock: Callable[[], float], ticks_per_second: float
    ) -> None:
        self._maps = maps
        self._clock = clock
        self.family = maps.layout.family
        self.stats: Counter[str] = Counter()
        """How many elements were written since the start, by map; deletions count as writes."""
        self.udp_departures = 0
        """How often backends of a UDP Service port ceased to serve since the start."""
        self._records: dict[ServicePortName, Record] = {}
        self._by_id: dict[int, Record] = {}
        self._strays = Found()
        self._grace = Grace(clock)
        vips = VipFilter(maps.vip_filter, self.stats)
        self._names = NameTable(maps, self.stats)
        self._ranges = SourceRangeTable(maps, self.stats)
        self._backends = BackendTable(maps, self.stats, self._grace)
        self._services = ServiceTable(maps, self.stats, self._grace, ticks_per_second)
        self._frontends = FrontendTable(maps, self.stats, vips, self._by_id, clock)
        node = NodeTables(maps, self.stats, vips)
        self.set_config = node.set_config
        self.set_crc32c_shifts = node.set_crc32c_shifts
        self.set_interface = node.set_interface
        self.delete_interface = node.delete_interface
        self.interfaces = node.interfaces
        self.set_snat_source = node.set_snat_source
        self.clear_snat_source = node.clear_snat_source
        self.set_pod_networks = node.set_pod_networks
        self.set_service_networks = node.set_service_networks

    def adopt(self) -> None:
        """Reads back what the kernel holds, so that only differences are written. Writes nothing.

        UserError if the maps contradict each other.
        """
        found = read_back(self._maps)
        records = found.records.values()
        self._by_id.clear()
        self._by_id.update(found.records)
        self._records = {record.name: record for record in records}
        self._strays = found
        words = [word for record in records for word in (record.cluster, record.local) if word]
        try:
            self._services.adopt([*found.records, *self._stray_ids()], words)
        except ValueError as error:
            raise UserError(
                f"The {self.family.directory} maps contradict each other ({error}): "
                "run `ebpf-lb cleanup` and start the agent again."
            ) from error
        self._backends.adopt([*found.backend_ids, *found.stray_backend_ids])
        self._frontends.adopt(records, found.unserved, found.stray_frontends)
        self._ranges.adopt(records, found.stray_ranges)
        self._grace.forget()
        found.records, found.backend_ids, found.unserved = {}, [], set()  # only strays are left

    def adopt_again(self) -> None:
        """Reads back what somebody else has changed; `set_all` and `retain` then write what
        differs. Put back before: where the sets of each Service port stand, which only we know.
        OSError, and UserError as `adopt`."""
        for record in self._records.values():
            self._services.put_back(record)
        self.adopt()
        self._maps.note_ends()
        for record in self._records.values():
            self._frontends.put_back(record)

    # -- questions ---------------------------------------------------------------------------------

    def serving(self, service_id: int) -> set[tuple[bytes, int]]:
        """Address and port of the backends that a Service port sends new connections to; none if
        there is no such Service port."""
        record = self._by_id.get(service_id)
        return self._backends.serving(record) if record else set()

    def names(self) -> list[ServicePortName]:
        """The Service ports that the kernel holds something for."""
        return list(self._records)

    def service_id(self, name: ServicePortName) -> int | None:
        """The id under which programs count this Service port."""
        record = self._records.get(name)
        return record.id if record else None

    def frontend_counts(self) -> dict[int, int]:
        """How many frontends each Service port has, by its id."""
        return {number: self._frontends.number(record) for number, record in self._by_id.items()}

    def occupancy(self) -> dict[str, int]:
        """How many elements are in use of the arrays that the writer gives out from."""
        used = self._services.occupancy()
        return {
            "services": used["services"],
            "backends": self._backends.used,
            "slots": used["slots"],
        }

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

    # -- writing -----------------------------------------------------------------------------------

    def set(self, forwarding: Forwarding) -> None:
        """Creates or changes one Service port; writes only the difference.

        NotProgrammed if it does not fit; what was there before goes on then. NotHashed if only its
        tables do not.
        """
        for error in self.set_all((forwarding,)):
            raise error

    def set_all(self, forwardings: Iterable[Forwarding]) -> list[NotProgrammed]:
        """Creates or changes Service ports; the reasons of those that are not as they were asked
        for. One that does not fit, or whose writing fails, does not hold back the others."""
        problems: list[NotProgrammed] = []
        changes: list[Change] = []
        for forwarding in forwardings:
            try:
                changes.append(self._prepare(forwarding))
            except Exhausted as error:
                problems.append(NotProgrammed(forwarding.name, self.family, error.what))
        self._write(changes)
        for change in changes:
            name = change.record.name
            if change.error:
                self._give_back(change)
                problems.append(NotProgrammed(name, self.family, change.error))
            elif change.lacking:
                problems.append(NotHashed(name, self.family, change.lacking))
        return problems

    def delete(self, name: ServicePortName) -> None:
        """Removes a Service port; nothing happens if there is none."""
        record = self._records.get(name)
        if record is None:
            return
        try:
            self._frontends.remove(record, {})
            self._ranges.remove_others(record, ())
            self._backends.withdraw(record)
            self._names.remove(record.id)
        except OSError as error:
            raise NotProgrammed(name, self.family, f"removing: {reason(error)}") from error
        del self._records[record.name]
        del self._by_id[record.id]
        self._backends.free(unpack_ids(record.backends))
        self._services.free([record.id], (record.cluster, record.local))
        self._note_departure(name)

    def retain(self, names: Collection[ServicePortName]) -> None:
        """Removes all Service ports but these, and whatever belongs to none."""
        wanted = set(names)
        for name in [name for name in self._records if name not in wanted]:
            self.delete(name)
        self._frontends.remove_strays()
        self._ranges.remove_strays()
        while self._strays.stray_names:
            self._names.remove(self._strays.stray_names[-1])
            self._strays.stray_names.pop()
        self._backends.free(self._strays.stray_backend_ids)
        self._services.free(self._strays.mentioned_ids, ())
        self._strays = Found()

    def housekeeping(self, now: float) -> None:
        """Clears what was freed a second ago and gives it out again; tells old frontends that they
        hash consistently. Call it every second or so."""
        self._grace.end(now)
        self._frontends.ripen(now)

    def _prepare(self, forwarding: Forwarding) -> Change:
        """Takes what the change needs; Exhausted, and nothing is taken, if it does not fit. Where
        only its tables do not, they are left out."""
        try:
            return self._take(forwarding)
        except Exhausted:
            if not len(self._grace):
                if not forwarding.by_table:
                    raise
            else:
                self._grace.end(self._clock())  # maybe it is only not given back yet
        try:
            return self._take(forwarding)
        except Exhausted as error:
            if not forwarding.by_table:
                raise
            return self._take(forwarding.without_tables(), lacking=error.what)

    def _take(self, forwarding: Forwarding, lacking: str = "") -> Change:
        record = self._records.get(forwarding.name) or Record(forwarding.name, 0)
        taken = [] if record.id else [self._services.take_id()]
        change = Change(
            record=record,
            forwarding=forwarding,
            service_id=record.id or taken[0],
            current=self._backends.held(record),
            backends={},
            sets=[],
            timeout_and_flags=self._services.timeout_and_flags(forwarding),
            taken_service_ids=taken,
            lacking=lacking,
        )
        try:
            if taken:
                change.name_value = self._names.value(record.name)
            backends, ids = self._backends.take(forwarding, change.current)
            change.backends = backends
            change.taken_backend_ids.update(ids)
            self._services.take_regions(change)
            self._frontends.prepare(change)
            self._ranges.prepare(change)
        except Exhausted:
            self._give_back(change)
            raise
        return change

    def _give_back(self, change: Change) -> None:
        """What was taken and, in the end, not used."""
        self._services.give_back(change.taken_service_ids, change.taken_regions)
        self._backends.give_back(change.taken_backend_ids)

    # rule: CP-3
    def _write(self, changes: list[Change]) -> None:
        def live() -> list[Change]:
            return [change for change in changes if not change.error]

        new = [change for change in changes if change.is_new]
        each(new, lambda change: self._services.clear_words(change.service_id))
        self._names.add([change for change in new if not change.error], self._begin)
        self._ranges.add(live())
        self._backends.raise_up(live())
        self._services.fill_regions(live())
        self._services.point(live())
        self._frontends.add(live())
        each([change for change in live() if not change.is_new], self._remove)
        with suppress(OSError):  # of no change in this batch: housekeeping tries again
            self._frontends.remove_orphans()
        self._backends.lower(live())
        for change in live():
            if self._backends.let_go(change):
                self._note_departure(change.record.name)
        self._frontends.end_of_batch()
        self._ranges.end_of_batch()

    def _remove(self, change: Change) -> None:
        if self._frontends.remove(change.record, change.frontends):
            self._note_departure(change.record.name)
        self._ranges.remove_others(change.record, change.ranges)

    def _begin(self, change: Change) -> None:
        """The name is there: from now on the id is the record's, whatever comes."""
        record = change.record
        record.id = change.service_id
        change.taken_service_ids = []
        self._records[record.name] = record
        self._by_id[record.id] = record

    def _stray_ids(self) -> list[int]:
        """Of services that nothing explains, as far as they can be given out: frontends of an
        earlier build may lead beyond the end of an array that has become smaller."""
        unpack_value = self._maps.layout.struct("frontend").unpack
        unpack_range = self._maps.layout.struct("source_range_key").unpack
        found = self._strays
        mentioned = {
            *found.stray_service_ids,
            *found.stray_names,
            *(unpack_value(value).service_id for value in found.stray_frontends.values()),
            *(unpack_range(key).service_id for key in found.stray_ranges),
        }
        found.mentioned_ids = [one for one in mentioned if one < self._maps.services.count]
        return found.mentioned_ids

    def _note_departure(self, name: ServicePortName) -> None:
        if name.protocol is Protocol.UDP:
            self.udp_departures += 1

"""Where we accept: the map frontends, a ClusterIP's other ports included.

The kernel itself says whose a key is: where two Service ports hand one over, whichever of them acts
first, only the owner's deletion counts.

A frontend with consistent hashing is told so a minute after it got it (CONSISTENT_AFTER_S): until
then, when it is YOUNG, there may be connections to it that were spread otherwise, and hashing would
send their packets to a wrong pod.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence

from ebpf_lb.datapath.writer.batch import Rows, reason, write
from ebpf_lb.datapath.writer.change import Change
from ebpf_lb.datapath.writer.family_maps import FamilyMaps
from ebpf_lb.datapath.writer.filter import VipFilter
from ebpf_lb.datapath.writer.pools import Exhausted, full
from ebpf_lb.datapath.writer.records import FrontendPacking, Record
from ebpf_lb.plan.forwarding import FrontendFlag, FrontendKind
from ebpf_lb.plan.node import LOOPBACK

CONSISTENT_AFTER_S = 60.0

_CONSISTENT, _YOUNG = int(FrontendFlag.CONSISTENT), int(FrontendFlag.YOUNG)


class FrontendTable:
    """by_id: the records by service id. clock: monotonic seconds."""

    def __init__(
        self,
        maps: FamilyMaps,
        stats: Counter[str],
        vips: VipFilter,
        by_id: Mapping[int, Record],
        clock: Callable[[], float],
    ) -> None:
        self._maps = maps
        self._stats = stats
        self._vips = vips
        self._by_id = by_id
        self._clock = clock
        layout = maps.layout
        key, value = layout.struct("frontend_key"), layout.struct("frontend")
        self._packing = FrontendPacking(key.size, value.size)
        self._pack_key = key.raw("address", "port", "protocol").pack
        self._value = value.raw("service_id", "kind", "flags")
        unserved = layout.enum("frontend_kind")["FRONTEND_UNSERVED"]
        self._unserved_value = self._value.pack(0, unserved, 0)
        self._localhost = bytes([layout.defines["FRONTEND_PAD_LOCALHOST"]])
        self._address_bytes = layout.family.address_bytes
        self._entries = 0
        self._promised = 0  # entries of changes that are not written yet
        self._ports: Counter[bytes] = Counter()  # ClusterIP -> Service ports that have it
        self._young: dict[bytes, tuple[float, int]] = {}  # key -> when it is old, service id
        self._strays: dict[bytes, bytes] = {}
        self._stray_addresses: set[bytes] = set()  # no Service port's, with an UNSERVED entry
        self._orphans: set[bytes] = set()  # likewise, since their Service port lost them

    def adopt(
        self, records: Iterable[Record], unserved: set[bytes], strays: dict[bytes, bytes]
    ) -> None:
        """What is there already; strays belong to no Service port that is known."""
        self._ports.clear()
        self._entries = len(unserved) + len(strays)
        for record in records:
            held = self._packing.unpack(record.frontends)
            self._entries += len(held)
            self._ports.update(self._cluster_ips(held))
        self._strays = strays
        self._stray_addresses = unserved - self._ports.keys()

    def number(self, record: Record) -> int:
        """How many entries lead to a Service port."""
        return len(record.frontends) // self._packing.size

    def held(self, record: Record) -> int:
        """How many entries there are for a Service port, those for its ClusterIPs included."""
        entries = self._packing.unpack(record.frontends)
        return len(entries) + len(self._cluster_ips(entries))

    def put_back(self, record: Record) -> None:
        """The bits by which programs find that an address is anything to them."""
        self._set_filter_bits(self._unpack(record))

    # -- before anything is written --------------------------------------------------------------

    def prepare(self, change: Change) -> None:
        """The entries that a Service port asks for. Where one address is two kinds at once, the
        first in FrontendKind's order counts. Exhausted if they do not fit."""
        forwarding, number = change.forwarding, change.service_id
        protocol, entries = forwarding.name.protocol, change.frontends
        held = self._unpack(change.record)
        pack_key, pack_value = self._pack_key, self._value.pack
        for address, port, kind, flags in forwarding.frontends:
            key = pack_key(address, port.to_bytes(2), protocol)
            if address in LOOPBACK:
                key = key[:-1] + self._localhost
            if key in entries:
                continue
            if kind is FrontendKind.CLUSTER_IP:
                change.cluster_ips.add(address)  # the plan's own object: it takes no memory
            if flags & _CONSISTENT and not self._is_consistent(held.get(key)):
                flags ^= _CONSISTENT | _YOUNG
                change.young.add(key)
            entries[key] = pack_value(number, kind, flags)
        self._promised += self._more(held, change)

    def _more(self, held: dict[bytes, bytes], change: Change) -> int:
        """By how many entries the map will grow at most; Exhausted if these do not fit."""
        fresh = [key for key in change.frontends if key not in held]
        entries, taken = self._maps.frontends.max_entries, self._entries + self._promised
        more = len(fresh) + len(change.cluster_ips)
        if taken + more <= entries:
            return more
        moved = sum(self._maps.frontends.lookup(key) is not None for key in fresh)
        bare = [address for address in change.cluster_ips if not self._has_unserved(address)]
        more = len(fresh) + len(bare) - moved
        if taken + more > entries:
            raise Exhausted(full("frontends", entries))
        return more

    def end_of_batch(self) -> None:
        """All that was prepared is written, or has failed."""
        self._promised = 0

    # -- writing -----------------------------------------------------------------------------------

    def add(self, changes: Sequence[Change]) -> None:
        """Entries that are new or other than before, then those for ClusterIPs' other ports."""
        rows, owners = [], dict[bytes, int]()
        of_change: dict[int, list[tuple[bytes, int]]] = {}
        bare = [self._surely_bare(change) for change in changes]
        for change in changes:
            held, fresh = self._unpack(change.record), change.frontends
            if held:
                fresh = {key: value for key, value in fresh.items() if held.get(key) != value}
            if not fresh:
                continue
            try:
                new = self._set_filter_bits(fresh)
            except OSError as error:
                change.error = reason(error)
                continue
            before = []
            for key in fresh:
                owner = owners.get(key)
                if owner is None:
                    owner = -1 if key[: self._address_bytes] in new else self._owner(key)
                before.append((key, owner))
            of_change[change.service_id] = before
            owners.update(dict.fromkeys(fresh, change.service_id))
            rows.append(_rows(change, fresh))
        write(
            self._maps.frontends,
            rows,
            lambda change, count: self._note_added(change, of_change[change.service_id][:count]),
        )
        for change in changes:
            if not change.error:
                self._note_young(change)
        self._add_unserved(zip(changes, bare, strict=True))

    def _set_filter_bits(self, entries: Iterable[bytes]) -> set[bytes]:
        """Those addresses that surely had no entry so far."""
        addresses = {key[: self._address_bytes] for key in entries}
        return {address for address in addresses if self._vips.add(address)}

    def _surely_bare(self, change: Change) -> set[bytes]:
        """ClusterIPs whose other ports have no entry: nobody had them so far."""
        return {
            address
            for address in change.cluster_ips
            if address not in self._ports
            and address not in self._stray_addresses
            and address not in self._orphans
        }

    def _add_unserved(self, changes: Iterable[tuple[Change, set[bytes]]]) -> None:
        rows, claimed = [], set[bytes]()
        for change, surely in changes:
            if change.error:
                continue
            bare = [
                address
                for address in sorted(change.cluster_ips - claimed)
                if address in surely or not self._has_unserved(address)
            ]
            if bare:
                claimed.update(bare)
                others = dict.fromkeys(map(self._unserved_key, bare), self._unserved_value)
                rows.append(_rows(change, others))
        write(self._maps.frontends, rows, lambda change, count: self._count(count, count))

    def _note_added(self, change: Change, added: list[tuple[bytes, int]]) -> None:
        """They are the change's now: what others had of them, they have no more. `added`: keys, and
        whose they were, -1 for nobody's."""
        record = change.record
        if not record.frontends and len(added) == len(change.frontends):
            record.frontends = self._packing.pack(change.frontends)
            self._ports.update(change.cluster_ips)
        else:
            held = self._packing.unpack(record.frontends)
            before = self._cluster_ips(held)
            for key, _ in added:
                held[key] = change.frontends[key]
            self._keep(record, held, before)
        self._count(sum(owner < 0 for _, owner in added), len(added))
        for key, owner in added:
            loser = self._by_id.get(owner)
            if loser is not None and loser is not record:
                left = self._packing.unpack(loser.frontends)
                before = self._cluster_ips(left)
                left.pop(key, None)
                self._keep(loser, left, before)

    def remove(self, record: Record, wanted: Mapping[bytes, bytes]) -> bool:
        """What is not wanted any more; ClusterIPs' other ports first. Is there any? OSError."""
        held = self._packing.unpack(record.frontends)
        gone = [key for key in held if key not in wanted]
        before, after = self._cluster_ips(held), self._cluster_ips(wanted)
        try:
            for address in sorted(before - after):
                if self._ports[address] == 1:
                    self._delete(self._unserved_key(address))
            for key in gone:
                owner = self._owner(key)
                if owner == record.id:
                    self._delete(key)
                elif owner < 0:  # taken off what the node lives by: datapath/vacate.py
                    self._count(-1, 0)
                del held[key]
        finally:
            if gone or before != after:
                self._keep(record, held, before)
        self.remove_orphans()
        return bool(gone)

    def remove_orphans(self) -> None:
        """ClusterIPs' other ports that their Service ports lost without knowing. OSError."""
        self._remove_unserved(self._orphans)

    def remove_strays(self) -> None:
        """Deletes what belongs to nobody."""
        for key, value in list(self._strays.items()):
            if self._maps.frontends.lookup(key) == value:
                self._delete(key)
            del self._strays[key]
        self._remove_unserved(self._stray_addresses)
        self._remove_unserved(self._orphans)

    def _remove_unserved(self, addresses: set[bytes]) -> None:
        """Of those that are still no Service port's; each is left out when that is done."""
        for address in sorted(addresses):
            if address not in self._ports:
                self._delete(self._unserved_key(address))
            addresses.discard(address)

    # -- consistent hashing ------------------------------------------------------------------------

    def ripen(self, now: float) -> None:
        """Those with consistent hashing that are not new any more are told so. OSError."""
        while self._young:
            key, (due, number) = next(iter(self._young.items()))
            if due > now:
                return
            record = self._by_id.get(number)
            held = self._packing.unpack(record.frontends) if record is not None else {}
            if record is not None and key in held and self._owner(key) == number:
                _, kind, flags = self._value.unpack(held[key])
                held[key] = self._value.pack(number, kind, flags & ~_YOUNG | _CONSISTENT)
                self._maps.frontends.update(key, held[key])
                record.frontends = self._packing.pack(held)
                self._count(0, 1)
            del self._young[key]

    def _note_young(self, change: Change) -> None:
        """From now on the minute counts, unless it does so already."""
        if not (self._young or change.young):
            return
        due = self._clock() + CONSISTENT_AFTER_S
        for key in change.frontends:
            if key not in change.young:
                self._young.pop(key, None)
            elif self._young.get(key, (0.0, 0))[1] != change.service_id:
                self._young.pop(key, None)  # and to the end
                self._young[key] = due, change.service_id

    def _unpack(self, record: Record) -> dict[bytes, bytes]:
        return self._packing.unpack(record.frontends) if record.frontends else {}

    def _is_consistent(self, value: bytes | None) -> bool:
        return value is not None and bool(self._value.unpack(value)[2] & _CONSISTENT)

    # -- the map and the records -------------------------------------------------------------------

    def _delete(self, key: bytes) -> None:
        if self._maps.frontends.delete(key):
            self._count(-1, 1)

    def _owner(self, key: bytes) -> int:
        """The service id of an entry; -1 if there is none."""
        value = self._maps.frontends.lookup(key)
        return -1 if value is None else int(self._value.unpack(value)[0])

    def _has_unserved(self, address: bytes) -> bool:
        return self._maps.frontends.lookup(self._unserved_key(address)) is not None

    def _keep(self, record: Record, held: dict[bytes, bytes], before: set[bytes]) -> None:
        record.frontends = self._packing.pack(held)
        after = self._cluster_ips(held)
        self._ports.update(after - before)
        for address in before - after:
            self._ports[address] -= 1
            if not self._ports[address]:
                del self._ports[address]
                if self._has_unserved(address):  # a write failed, or another one took the key
                    self._orphans.add(address)

    def _cluster_ips(self, entries: Mapping[bytes, bytes]) -> set[bytes]:
        unpack, size = self._value.unpack, self._address_bytes
        cluster_ip = FrontendKind.CLUSTER_IP
        return {key[:size] for key, value in entries.items() if unpack(value)[1] == cluster_ip}

    def _unserved_key(self, address: bytes) -> bytes:
        return self._pack_key(address, bytes(2), 0)

    def _count(self, entries: int, writes: int) -> None:
        """So many writes, by which the map grew by so many entries."""
        self._entries += entries
        self._stats["frontends"] += writes


def _rows(change: Change, entries: Mapping[bytes, bytes]) -> Rows:
    return Rows(change, len(entries), b"".join(entries), b"".join(entries.values()))

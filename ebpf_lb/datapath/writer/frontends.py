"""Where we accept: the map frontends, a ClusterIP's other ports included."""

from collections import Counter
from collections.abc import Callable, Iterable

from ebpf_lb.datapath.writer.family_maps import FamilyMaps
from ebpf_lb.datapath.writer.pools import Exhausted, full
from ebpf_lb.datapath.writer.records import FrontendPacking, Record
from ebpf_lb.plan.forwarding import Forwarding, FrontendKind


class Frontends:
    """The kernel itself says whose a key is: where two Service ports hand one over, whichever of
    them acts first, only the owner's deletion counts.

    by_id: the records by service id. set_filter_bit: see NodeTables.
    """

    def __init__(
        self,
        maps: FamilyMaps,
        by_id: dict[int, Record],
        stats: Counter[str],
        set_filter_bit: Callable[[bytes], None],
    ) -> None:
        self._maps = maps
        self._by_id = by_id
        self._stats = stats
        self._set_filter_bit = set_filter_bit
        layout = maps.layout
        key, value = layout.struct("frontend_key"), layout.struct("frontend")
        self._packing = FrontendPacking(key.size, value.size)
        self._pack_key = key.raw("address", "port", "protocol").pack
        self._value = value.raw("service_id", "kind", "flags")
        unserved = layout.enum("frontend_kind")["FRONTEND_UNSERVED"]
        self._unserved_value = self._value.pack(0, unserved, 0)
        self._address_bytes = layout.family.address_bytes
        self._entries = 0
        self._ports: Counter[bytes] = Counter()  # ClusterIP -> Service ports that have it
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

    def wanted(self, forwarding: Forwarding, service_id: int) -> dict[bytes, bytes]:
        """The entries that a Service port asks for. Where one address is two kinds at once, the
        first in FrontendKind's order counts."""
        protocol = forwarding.name.protocol
        entries: dict[bytes, bytes] = {}
        for frontend in forwarding.frontends:
            key = self._pack_key(frontend.address, frontend.port.to_bytes(2), protocol)
            if key not in entries:
                entries[key] = self._value.pack(service_id, frontend.kind, frontend.flags)
        return entries

    def held(self, record: Record) -> int:
        """How many entries there are for a Service port, those for its ClusterIPs included."""
        entries = self._packing.unpack(record.frontends)
        return len(entries) + len(self._cluster_ips(entries))

    def check_room(self, record: Record, wanted: dict[bytes, bytes]) -> None:
        """Exhausted if the new entries do not fit; nothing is written."""
        held = self._packing.unpack(record.frontends)
        fresh = [key for key in wanted if key not in held]
        addresses = self._cluster_ips(wanted)
        entries = self._maps.frontends.max_entries
        if self._entries + len(fresh) + len(addresses) <= entries:
            return
        addresses = {address for address in addresses if not self._has_unserved(address)}
        moved = sum(self._maps.frontends.lookup(key) is not None for key in fresh)
        if self._entries + len(fresh) + len(addresses) - moved > entries:
            raise Exhausted(full("frontends", entries))

    def change(self, record: Record, wanted: dict[bytes, bytes]) -> None:
        """Writes the difference; the record always says what is there."""
        held = self._packing.unpack(record.frontends)
        before = self._cluster_ips(held)
        after = self._cluster_ips(wanted)
        bare = sorted(address for address in after if not self._has_unserved(address))
        if held == wanted and not bare:
            return
        try:
            for key, value in wanted.items():
                if held.get(key) != value:
                    self._write(record, key, value)
                    held[key] = value
            for address in bare:
                self._maps.frontends.update(self._unserved_key(address), self._unserved_value)
                self._count(1)
            for address in sorted(before - after):
                if self._ports[address] == 1:
                    self._delete(self._unserved_key(address))
            for key in [key for key in held if key not in wanted]:
                if self._is_owner(record.id, key):
                    self._delete(key)
                del held[key]
        finally:
            self._keep(record, held, before)
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

    def _write(self, record: Record, key: bytes, value: bytes) -> None:
        self._set_filter_bit(key[: self._address_bytes])
        old = self._maps.frontends.lookup(key)
        self._maps.frontends.update(key, value)
        self._count(old is None)
        if old is not None:
            loser = self._by_id.get(self._value.unpack(old)[0])
            if loser is not None and loser is not record:
                left = self._packing.unpack(loser.frontends)
                before = self._cluster_ips(left)
                left.pop(key, None)
                self._keep(loser, left, before)

    def _delete(self, key: bytes) -> None:
        if self._maps.frontends.delete(key):
            self._count(-1)

    def _has_unserved(self, address: bytes) -> bool:
        return self._maps.frontends.lookup(self._unserved_key(address)) is not None

    def _is_owner(self, service_id: int, key: bytes) -> bool:
        value = self._maps.frontends.lookup(key)
        return value is not None and self._value.unpack(value)[0] == service_id

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

    def _cluster_ips(self, entries: dict[bytes, bytes]) -> set[bytes]:
        return {
            key[: self._address_bytes]
            for key, value in entries.items()
            if self._value.unpack(value)[1] == FrontendKind.CLUSTER_IP
        }

    def _unserved_key(self, address: bytes) -> bytes:
        return self._pack_key(address, bytes(2), 0)

    def _count(self, entries: int) -> None:
        """One write, by which the map grew by so many entries."""
        self._entries += entries
        self._stats["frontends"] += 1

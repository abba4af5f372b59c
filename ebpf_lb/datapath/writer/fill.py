"""Many new Service ports at once: what a cold start writes, in a few calls instead of thousands.

The order is that of `FamilyWriter.set`, kept for all of them together: all names, all backends, all
slots, all words, all filter bits, then all frontends, then what is UNSERVED. Only Service ports of
which nothing is known take part, and only with frontends that nobody has; the others are `set`.

If a write fails, what is there by then belongs to nobody, as if an agent had died over it: the next
`retain` removes it.
"""

import struct
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from ebpf_lb.datapath.libbpf import BatchError
from ebpf_lb.datapath.writer.frontends import Frontends
from ebpf_lb.datapath.writer.pools import Exhausted
from ebpf_lb.datapath.writer.records import Record, pack_ids
from ebpf_lb.datapath.writer.services import Services
from ebpf_lb.plan.forwarding import Forwarding, FrontendKind

_INDEX = struct.Struct("=I")


class Fresh(NamedTuple):
    """A Service port that is new. The record says what the kernel will hold when all is written;
    `values` are its backends', behind each other, in the order of their ids."""

    forwarding: Forwarding
    record: Record
    values: bytes


class NewServices(Services):
    """Services, and many new ones at once."""

    def take_many(self, wanted: Sequence[Forwarding]) -> list[Fresh]:
        """Ids and regions for all of them; Exhausted, and nothing is taken, if they do not fit."""
        flags = [self._flags(forwarding) for forwarding in wanted]
        fresh: list[Fresh] = []
        service_ids, backend_ids = self._service_ids.take(len(wanted)), []
        try:
            backend_ids = self._backend_ids.take(sum(map(len, flags)))
            at = 0
            for forwarding, number, own in zip(wanted, service_ids, flags, strict=True):
                ids = backend_ids[at : at + len(own)]
                at += len(own)
                fresh.append(self._fresh(Record(forwarding.name, number), forwarding, own, ids))
        except Exhausted:
            self._service_ids.give_back(service_ids)
            self._backend_ids.give_back(backend_ids)
            for one in fresh:
                self._slots.give_back(_words(one.record))
            raise
        return fresh

    def _fresh(
        self, record: Record, forwarding: Forwarding, flags: dict[bytes, int], ids: list[int]
    ) -> Fresh:
        record.backends = pack_ids(ids)
        record.timeout_and_flags = self._shared_word(self._timeout_and_flags(forwarding))
        for which in ("cluster", "local"):
            backends = getattr(forwarding, which)
            if not backends:
                continue
            content = record.backends
            if len(backends) != len(flags) or forwarding.local:
                by_key = dict(zip(flags, ids, strict=True))
                keys = (backend.address + backend.port.to_bytes(2) for backend in backends)
                content = pack_ids([by_key[key] for key in keys])
            try:
                word = self._slots.take(len(backends))
            except Exhausted:
                self._slots.give_back(_words(record))
                raise
            setattr(record, which, word)
            setattr(record, f"{which}_ids", content)
        pack, size, number = self._pack_backend, self._address_bytes, record.id
        values = [pack(key[:size], key[size:], number, held) for key, held in flags.items()]
        return Fresh(forwarding, record, b"".join(values))

    def write_many(self, fresh: Sequence[Fresh]) -> None:
        """Backends, slots, words: nothing points to them as yet. OSError."""
        records = [one.record for one in fresh]
        backends = b"".join([record.backends for record in records])
        if backends:
            values = b"".join([one.values for one in fresh])
            self._maps.backends.update_batch(backends, values)
            self._stats["backends"] += len(backends) // 4
        content = b"".join([ids for one in records for ids in (one.cluster_ids, one.local_ids)])
        if content:
            self._slots.write([word for record in records for word in _words(record)], content)
        for record in records:
            self.clear_words(record.id)
            self._store_all(record)

    def _store_all(self, record: Record) -> None:
        offsets = (self._region_at["cluster"], self._region_at["local"], self._third_at)
        words = (*_words(record), record.timeout_and_flags)
        for offset, word in zip(offsets, words, strict=True):
            if word:
                self._maps.services.store(record.id, offset, word)
                self._stats["services"] += 1


class NewFrontends(Frontends):
    """Frontends, and those of many new Service ports at once."""

    def keys(self, forwarding: Forwarding) -> set[bytes]:
        """Those of a Service port's entries."""
        protocol, pack = forwarding.name.protocol, self._pack_key
        return {pack(f.address, f.port.to_bytes(2), protocol) for f in forwarding.frontends}

    def unclaimed(self, entries: Iterable[bytes]) -> bool:
        """Whether none of these keys is in the map."""
        return all(self._maps.frontends.lookup(key) is None for key in entries)

    def write_many(self, fresh: Sequence[Fresh]) -> None:
        """Entries that are in the map nowhere yet, then what they leave UNSERVED. Exhausted if they
        do not fit; OSError, and then those that were written are strays."""
        wanted = [self.wanted(one.forwarding, one.record.id) for one in fresh]
        # the plan's own objects: those that are kept then take no memory
        addresses = [
            {f.address for f in one.forwarding.frontends if f.kind is FrontendKind.CLUSTER_IP}
            for one in fresh
        ]
        bare = {address for address in set().union(*addresses) if not self._has_unserved(address)}
        whole = {key: value for entries in wanted for key, value in entries.items()}
        entries = self._maps.frontends.max_entries
        if self._entries + len(whole) + len(bare) > entries:
            raise Exhausted("frontends")
        for key in whole:
            self._set_filter_bit(key[: self._address_bytes])
        unserved = {self._unserved_key(address): self._unserved_value for address in sorted(bare)}
        try:
            self._write_batch(whole)
            self._write_batch(unserved)
        except OSError:
            self._strays |= whole
            self._stray_addresses |= bare
            raise
        for one, own, ips in zip(fresh, wanted, addresses, strict=True):
            one.record.frontends = self._packing.pack(own)
            self._ports.update(ips)

    def _write_batch(self, elements: dict[bytes, bytes]) -> None:
        if not elements:
            return
        done = 0
        try:
            self._maps.frontends.update_batch(b"".join(elements), b"".join(elements.values()))
            done = len(elements)
        except BatchError as error:
            done = error.done
            raise
        finally:
            self._entries += done
            self._stats["frontends"] += done


def _words(record: Record) -> tuple[int, int]:
    return record.cluster, record.local

"""Maps in memory that look at every single write: is the whole still right, and shall it fail?"""

import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import chain

from ebpf_lb.datapath.layout import Layout, load
from ebpf_lb.datapath.libbpf import BatchError
from ebpf_lb.datapath.writer import FamilyMaps, parse_name
from ebpf_lb.datapath.writer.hashes import filter_bit
from ebpf_lb.model.values import Family
from ebpf_lb.plan.forwarding import Forwarding

Hook = Callable[[], None]


class FakeTable:
    """A hash or a trie."""

    def __init__(self, name: str, layout: Layout, max_entries: int, hooks: "Hooks") -> None:
        spec = layout.map(name)
        self.name, self.max_entries, self.content = name, max_entries, dict[bytes, bytes]()
        self._sizes = (spec.key_size, spec.value_size)
        self._hooks = hooks

    def lookup(self, key: bytes) -> bytes | None:
        return self.content.get(key)

    def update(self, key: bytes, value: bytes) -> None:
        assert (len(key), len(value)) == self._sizes
        self._hooks.before()
        if key not in self.content and len(self.content) >= self.max_entries:
            raise OSError(7, f"map {self.name}: update: full")
        self.content[key] = value
        self._hooks.after()

    def delete(self, key: bytes) -> bool:
        self._hooks.before()
        gone = self.content.pop(key, None) is not None
        self._hooks.after()
        return gone

    def items(self) -> Iterator[tuple[bytes, bytes]]:
        return iter(list(self.content.items()))

    def slice(self, first: int, count: int) -> bytes:
        raise AssertionError(f"{self.name} is not an array")

    def update_batch(self, keys: bytes, values: bytes) -> None:
        key_size, value_size = self._sizes
        for index in range(len(keys) // key_size):
            try:
                self.update(
                    keys[index * key_size : (index + 1) * key_size],
                    values[index * value_size : (index + 1) * value_size],
                )
            except OSError as error:
                failure = BatchError(error.errno, error.strerror)
                failure.done = index
                raise failure from error


class FakeArray(FakeTable):
    """All its elements are there, zero at first."""

    def lookup(self, key: bytes) -> bytes | None:
        if int.from_bytes(key, "little") >= self.max_entries:
            return None
        return self.content.get(key, bytes(self._sizes[1]))

    def update(self, key: bytes, value: bytes) -> None:
        assert int.from_bytes(key, "little") < self.max_entries
        super().update(key, value)

    def slice(self, first: int, count: int) -> bytes:
        last = min(first + count, self.max_entries)
        return b"".join(
            self.lookup(struct.pack("=I", index)) or b"" for index in range(first, last)
        )


class FakeWords:
    """A mapped array."""

    def __init__(self, size: int, count: int, hooks: "Hooks") -> None:
        self.count, self.stride = count, -(-size // 8) * 8
        self.words = [0] * (count * self.stride // 8)
        self._hooks = hooks

    def load(self, index: int, offset: int = 0) -> int:
        return self.words[(index * self.stride + offset) // 8]

    def store(self, index: int, offset: int, value: int) -> None:
        assert 0 <= index < self.count
        assert 0 <= value < 1 << 64
        self._hooks.before()
        self.words[(index * self.stride + offset) // 8] = value
        self._hooks.after()

    def used(self) -> list[int]:
        width = self.stride // 8
        return [i for i in range(self.count) if any(self.words[i * width : (i + 1) * width])]


@dataclass
class Hooks:
    """Counts writes, fails the one numbered `fail_at` (from 1), and checks after each."""

    check: Hook | None = None
    fail_at: int = 0
    writes: int = 0

    def before(self) -> None:
        self.writes += 1
        if self.writes == self.fail_at:
            raise OSError(12, "map fake: update: out of memory")

    def after(self) -> None:
        if self.check is not None:
            self.check()


class FakeMaps:
    """One family's maps, and the law that must hold after each write."""

    def __init__(self, family: Family, **capacities: int) -> None:
        self.layout = layout = load(family)
        self.hooks = hooks = Hooks()
        entries = {
            "services": 64,
            "vip_filter": 64,
            "backends": 256,
            "slots": 2048,  # tables and what rests after changes, all at once
            "frontends": 256,
        }
        entries |= capacities

        def table(name: str) -> FakeTable:
            array = "array" in layout.map(name).type
            return (FakeArray if array else FakeTable)(name, layout, entries.get(name, 256), hooks)

        names = ("frontends", "slots", "backends", "names", "source_ranges", "service_counters")
        names += ("pod_networks", "interfaces", "snat_sources", "config", "crc32c_shifts")
        names += ("service_networks", "connections")
        self.tables = {name: table(name) for name in names}
        self.services = FakeWords(layout.struct("service").size, entries["services"], hooks)
        self.vip_filter = FakeWords(8, entries["vip_filter"], hooks)
        self.maps = FamilyMaps(
            layout=layout, services=self.services, vip_filter=self.vip_filter, **self.tables
        )
        hooks.check = self.check
        self.expected: dict[str, list[Forwarding]] = {}
        """By name: what a Service port may look like now, the old way or the new one, if known."""

    def check(self) -> None:
        """Whatever a packet could look up now is whole."""
        layout = self.layout
        address_of = layout.struct("snat_source").unpack
        for _, value in self.tables["snat_sources"].items():
            address = address_of(value).address
            word, bit = filter_bit(address, self.vip_filter.count)
            # replies to what was masqueraded come to this address
            assert not any(address) or self.vip_filter.load(word) >> bit & 1, "no filter bit"
        key_of, value_of = layout.struct("frontend_key").unpack, layout.struct("frontend").unpack
        for key, value in self.tables["frontends"].items():
            address, service_id = key_of(key).address, value_of(value).service_id
            word, bit = filter_bit(address, self.vip_filter.count)
            assert self.vip_filter.load(word) >> bit & 1, "an address without its filter bit"
            if service_id:
                assert struct.pack("=I", service_id) in self.tables["names"].content, "no name"
                self.is_whole(service_id)

    def is_whole(self, service_id: int) -> None:
        """Each part is as one of the expected values has it."""
        name = self.tables["names"].content[struct.pack("=I", service_id)]
        expected = self.expected.get(self.layout.struct("service_name").unpack(name).text, [])
        for which in ("cluster", "local"):
            found = [place[:2] for place in self.endpoints(service_id, which)]
            parts = [[(b.address, b.port) for b in getattr(one, which)] for one in expected]
            if any(getattr(one, f"{which}_table") for one in expected):
                # a table changes slot by slot
                assert set(found) <= set(chain(*parts)), f"{which}: neither an old nor a new one"
                continue
            assert not parts or found in parts, f"the {which} set is neither old nor new"
        service = self.layout.struct("service")
        flags = self.services.load(service_id, service.offset("affinity_timeout")) >> 32
        has_any = bool(flags & layout_flag(self.layout, "HAS_ANY"))
        assert not expected or has_any in [one.has_any for one in expected], "flags not yet written"

    def endpoints(self, service_id: int, which: str) -> list[tuple[bytes, int, int]]:
        """Address, port and flags of each slot of a set."""
        layout = self.layout
        region = self.services.load(service_id, layout.struct("service").offset(which))
        base, size = region & 0xFFFFFFFF, region >> 32
        assert base + size <= self.tables["slots"].max_entries
        found = []
        for (number,) in struct.iter_unpack("=I", self.tables["slots"].slice(base, size)):
            assert number, "an empty slot"
            data = self.tables["backends"].lookup(struct.pack("=I", number))
            backend = layout.struct("backend").unpack(data)
            assert backend.service_id == service_id, "somebody else's backend"
            flag = layout.enum("backend_flag")[f"BACKEND_IN_{which.upper()}_SET"]
            found.append((backend.address, backend.port, backend.flags))
            assert any(backend.address), "a backend without an address"
            assert backend.flags & flag, "in a set, but not flagged so"
        return found

    def state(self) -> dict[str, object]:
        """All that counts of the contents, by names instead of ids."""
        layout, tables = self.layout, self.tables
        names = {
            struct.unpack("=I", key)[0]: layout.struct("service_name").unpack(value).text
            for key, value in tables["names"].items()
        }
        service = layout.struct("service")
        result: dict[str, object] = {}
        for number, text in names.items():
            parse_name(text)
            result[text] = (
                self.endpoints(number, "cluster"),
                self.endpoints(number, "local"),
                self.services.load(number, service.offset("affinity_timeout")),
            )
        for key, value in tables["frontends"].items():
            entry = layout.struct("frontend").unpack(value)
            result[f"frontend {key.hex()}"] = (names.get(entry.service_id), entry.kind, entry.flags)
        for key in tables["source_ranges"].content:
            one = layout.struct("source_range_key").unpack(key)
            result[f"range {names[one.service_id]} {one.prefix_length} {one.address.hex()}"] = True
        return result

    def leftovers(self) -> dict[str, int]:
        """How many elements are not zero, by map; the filter's bits stay by design."""
        counts = {
            name: sum(any(value) or "array" not in self.layout.map(name).type for value in values)
            for name, values in (
                (name, list(table.content.values())) for name, table in self.tables.items()
            )
        }
        counts["services"] = sum(map(bool, self.services.words))
        return {name: count for name, count in counts.items() if count}


def layout_flag(layout: Layout, name: str) -> int:
    return layout.enum("service_flag")[f"SERVICE_{name}"]

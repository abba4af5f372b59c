"""The binding of libbpf on the running kernel."""

import errno
import gc
import struct
from collections import Counter
from pathlib import Path

import pytest

from ebpf_lb.datapath import clock
from ebpf_lb.datapath.layout import load
from ebpf_lb.datapath.libbpf import BatchError, Map, MapType, Program, Update
from ebpf_lb.model.values import Family

from ..capabilities import BPF, BPFFS, ROOT, needs
from .pinned import create_map, load_program, pins

pytestmark = needs(ROOT, BPF, BPFFS)

ENTRIES = 100
KINDS = [MapType.HASH, MapType.LRU_HASH, MapType.ARRAY, MapType.LPM_TRIE, MapType.PERCPU_ARRAY]


def key_of(kind: MapType, number: int) -> bytes:
    if kind is MapType.LPM_TRIE:
        return struct.pack("=I", 32) + struct.pack(">I", number)
    return struct.pack("=I", number)


@pytest.mark.parametrize("kind", KINDS)
def test_batches_and_single_calls_agree(kind: MapType) -> None:
    flags = 1 if kind in (MapType.HASH, MapType.LPM_TRIE) else 0
    key_size = len(key_of(kind, 0))
    with Map.create(kind, key_size, 12, 4 * ENTRIES, flags, "batch") as opened:
        keys = [key_of(kind, number) for number in range(ENTRIES)]
        width = len(opened.lookup(keys[0]) or b"") or (12 if not opened.per_cpu else 0)
        values = [bytes([1 + number]) * width for number in range(ENTRIES)]
        opened.update_batch(b"".join(keys), b"".join(values))
        found = {key: value for key, value in opened.items() if any(value)}
        assert found.keys() == set(keys)
        for key, value in zip(keys, values, strict=True):
            assert found[key] == opened.lookup(key)
            assert opened.copies(value)[0] == value[:12] == opened.copies(found[key])[0]
        assert set(keys) <= set(opened.keys())
        if kind in (MapType.HASH, MapType.LRU_HASH, MapType.LPM_TRIE):
            assert opened.delete(keys[0])
            assert not opened.delete(keys[0])
            assert opened.lookup(keys[0]) is None
            opened.delete_batch(b"".join(keys))
            assert list(opened.items()) == []


def test_a_full_map_says_how_far_it_came() -> None:
    with Map.create(MapType.HASH, 4, 4, 3, 1, "small") as opened:
        keys = b"".join(struct.pack("=I", number) for number in range(5))
        with pytest.raises(BatchError, match="map small: update of many, after 3") as caught:
            opened.update_batch(keys, bytes(20))
        assert (caught.value.errno, caught.value.done) == (errno.E2BIG, 3)
        with pytest.raises(OSError, match="map small: update"):
            opened.update(b"abcd", bytes(4))
        with pytest.raises(FileExistsError):
            opened.update(keys[:4], bytes(4), Update.NEW_ONLY)
        with pytest.raises(ValueError, match="a key has 4 bytes, not 3"):
            opened.lookup(b"abc")


def test_windows_on_an_array() -> None:
    with Map.create(MapType.ARRAY, 4, 12, 5000, 0x400, "mapped") as opened:
        with opened.mapped(3000, 1000, writable=True) as window:
            window.store(3999, 8, 7)
            assert window.load(3999, 8) == 7
            opened.update(struct.pack("=I", 3001), b"abcdefghijkl")
            assert window.element(3001, 12) == b"abcdefghijkl"
            assert window.used() == [3001, 3999]
        assert opened.lookup(struct.pack("=I", 3999)) == bytes(8) + b"\7\0\0\0"
        assert opened.slice(3999, 2) == bytes(8) + b"\7\0\0\0" + bytes(12)
        assert opened.slice(4999, 10) == bytes(12)
        with opened.mapped(0, 10, writable=False) as window, pytest.raises(TypeError):
            window.store(0, 0, 1)


def test_pinned_maps_can_be_opened_read_only() -> None:
    with pins("readonly") as where:
        path = where.root / "map"
        with Map.create(MapType.HASH, 4, 4, 10, 1, "pinned") as created:
            created.update(b"abcd", b"efgh")
            created.pin(path)
        with Map.open(path, read_only=True) as opened:
            assert opened.lookup(b"abcd") == b"efgh"
            assert opened.info().name == "pinned"
            with pytest.raises(PermissionError, match="map map: update"):
                opened.update(b"abcd", b"ijkl")
        with pytest.raises(FileNotFoundError, match="opening the map pinned at /sys/fs/bpf/"):
            Map.open(where.root / "none")


def test_all_declared_maps_can_be_created() -> None:
    for family in Family:
        for spec in load(family).maps.values():
            with create_map(spec) as created:
                assert (created.key_size, created.value_size) == (spec.key_size, spec.value_size)


def test_programs_run_on_a_packet() -> None:
    with load_program("answer", 1234) as program:
        run = program.test_run(bytes(64), repeat=10)
        assert (run.retval, run.data_out) == (1234, bytes(64))
        assert clock.now(program) == 1234
        info = program.info()
        assert (info.name, info.instructions) == ("answer", 2)
        with Program.by_id(info.id) as again:
            assert again.info() == info
        with Map.create(MapType.PROG_ARRAY, 4, 4, 2, 0, "calls") as calls:
            calls.update(bytes(4), struct.pack("=I", program.fd))
            assert [value for _, value in calls.items()] == [struct.pack("=I", info.id)]


def test_descriptors_are_closed() -> None:
    def held() -> Counter[str]:
        """Of maps, when those that other tests left to the garbage are gone."""
        gc.collect()
        links = (str(path.readlink()) for path in folder.iterdir() if path.is_symlink())
        return Counter(link for link in links if "bpf-map" in link)

    folder = Path("/proc/self/fd")
    before = held()
    for _ in range(5):
        with Map.create(MapType.ARRAY, 4, 8, 10, 0x400, "closed") as opened:
            assert held() - before
            opened.mapped(writable=True).close()
    assert held() == before

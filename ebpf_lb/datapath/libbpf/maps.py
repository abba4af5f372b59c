"""Maps: creating, opening, and every way of reading and writing them."""

import ctypes
import errno
from collections.abc import Iterator
from ctypes import c_char, c_size_t, c_uint32, c_uint64
from dataclasses import dataclass
from enum import IntEnum
from typing import Any, Self

from ebpf_lb.datapath.libbpf.object import (
    BpfObject,
    checked,
    failure,
    library,
    possible_cpus,
)
from ebpf_lb.datapath.libbpf.window import MappedArray

BATCH = 4096  # elements a look-up of many
_MEMORY_LIMIT = 1 << 18  # bytes of values a look-up of many
_UNSUPPORTED = (errno.EINVAL, errno.EOPNOTSUPP, 524)  # 524: the kernel's own ENOTSUPP


class MapType(IntEnum):
    """Kinds of maps, by the kernel's numbers."""

    HASH = 1
    ARRAY = 2
    PROG_ARRAY = 3
    PERCPU_HASH = 5
    PERCPU_ARRAY = 6
    LRU_HASH = 9
    LRU_PERCPU_HASH = 10
    LPM_TRIE = 11
    RINGBUF = 27

    @property
    def per_cpu(self) -> bool:
        return self in (MapType.PERCPU_HASH, MapType.PERCPU_ARRAY, MapType.LRU_PERCPU_HASH)


class Update(IntEnum):
    """When an update is allowed."""

    ANY = 0
    NEW_ONLY = 1
    EXISTING_ONLY = 2


@dataclass(frozen=True, slots=True)
class MapInfo:
    """A map's shape. `type` is the kernel's number; sizes are bytes."""

    type: int
    id: int
    key_size: int
    value_size: int
    max_entries: int
    flags: int
    name: str


class BatchError(OSError):
    """A batch ended early; the first `done` elements are written."""

    done: int


class _CreateOptions(ctypes.Structure):
    _fields_ = (
        ("size", c_size_t),
        ("btf", c_uint32 * 4),
        ("inner_map_fd", c_uint32),
        ("map_flags", c_uint32),
        ("map_extra", c_uint64),
        ("numa_node", c_uint32),
        ("map_ifindex", c_uint32),
    )


class _Info(ctypes.Structure):
    _fields_ = (
        ("type", c_uint32),
        ("id", c_uint32),
        ("key_size", c_uint32),
        ("value_size", c_uint32),
        ("max_entries", c_uint32),
        ("map_flags", c_uint32),
        ("name", c_char * 16),
        ("", c_uint32 * 12),
    )


class Map(BpfObject):
    """An open map. Keys and values are bytes of exactly its sizes."""

    kind = "map"

    def __init__(self, fd: int, name: str) -> None:
        super().__init__(fd, name)
        info = self.info()
        self.type, self.id, self.flags = info.type, info.id, info.flags
        self.key_size, self.value_size = info.key_size, info.value_size
        self.max_entries = info.max_entries
        self.per_cpu = info.type in MapType._value2member_map_ and MapType(info.type).per_cpu
        # what a look-up returns: of per-CPU maps one copy a CPU, each at a multiple of 8
        self.stride = -(-info.value_size // 8) * 8
        self._value_bytes = self.stride * possible_cpus() if self.per_cpu else info.value_size
        self._value = ctypes.create_string_buffer(self._value_bytes)
        self._next_key = ctypes.create_string_buffer(max(info.key_size, 8))
        calls = library()
        self._lookup, self._update = calls.bpf_map_lookup_elem, calls.bpf_map_update_elem

    @classmethod
    def create(
        cls,
        map_type: MapType,
        key_size: int,
        value_size: int,
        max_entries: int,
        flags: int = 0,
        name: str = "",
    ) -> Self:
        """A new map; it is gone with its last descriptor unless pinned."""
        options = _CreateOptions(size=ctypes.sizeof(_CreateOptions), map_flags=flags)
        fd = library().bpf_map_create(
            map_type, name.encode()[:15], key_size, value_size, max_entries, ctypes.byref(options)
        )
        return cls(checked(fd, f"map {name}: creating it with {max_entries} entries"), name)

    def info(self) -> MapInfo:
        info = self.read_info(_Info())
        return MapInfo(
            info.type,
            info.id,
            info.key_size,
            info.value_size,
            info.max_entries,
            info.map_flags,
            info.name.decode(),
        )

    def lookup(self, key: bytes) -> bytes | None:
        """The value, or None; of a per-CPU map all copies behind each other (`copies`)."""
        self._check(key, None)
        result = self._lookup(self.fd, key, self._value)
        if result == 0:
            return self._value.raw
        if result == -errno.ENOENT:
            return None
        raise failure(-result, f"map {self.name}: look-up")

    def update(self, key: bytes, value: bytes, flags: Update = Update.ANY) -> None:
        """Writes one element (of a per-CPU map: `value` for all CPUs, behind each other).

        OSError: E2BIG where the map is full, EEXIST or ENOENT as `flags` say.
        """
        self._check(key, value)
        result = self._update(self.fd, key, value, flags)
        if result < 0:
            raise failure(-result, f"map {self.name}: update")

    def delete(self, key: bytes) -> bool:
        """Deletes an element; False if there was none."""
        self._check(key, None)
        result = library().bpf_map_delete_elem(self.fd, key)
        if result < 0 and result != -errno.ENOENT:
            raise failure(-result, f"map {self.name}: deletion")
        return bool(result == 0)

    def next_key(self, key: bytes | None) -> bytes | None:
        """The key after this one, the first one for None, None after the last."""
        if key is not None:
            self._check(key, None)
        result = library().bpf_map_get_next_key(self.fd, key, self._next_key)
        if result == 0:
            return self._next_key.raw[: self.key_size]
        if result == -errno.ENOENT:
            return None
        raise failure(-result, f"map {self.name}: next key")

    def keys(self) -> Iterator[bytes]:
        """All keys; deleting the one just given is fine."""
        key = self.next_key(None)
        while key is not None:
            following = self.next_key(key)
            yield key
            key = following

    def items(self) -> Iterator[tuple[bytes, bytes]]:
        """All elements, many a call where the kernel can."""
        for keys, values in self.chunks():
            size, width = self.key_size, self._value_bytes
            for index in range(len(keys) // size):
                yield (
                    keys[index * size : (index + 1) * size],
                    values[index * width : (index + 1) * width],
                )

    def chunks(self) -> Iterator[tuple[bytes, bytes]]:
        """All elements as pairs of many keys and as many values, behind each other."""
        room = max(min(BATCH, _MEMORY_LIMIT // self._value_bytes, self.max_entries), 16)
        keys, values = self._buffers(room)
        position = ctypes.create_string_buffer(max(self.key_size, 8))
        started = False
        while True:
            count = c_uint32(room)
            result = library().bpf_map_lookup_batch(
                self.fd,
                position if started else None,
                position,
                keys,
                values,
                ctypes.byref(count),
                None,
            )
            if result == -errno.ENOSPC:  # one hash bucket holds more than fits
                room *= 2
                keys, values = self._buffers(room)
                continue
            if result in [-code for code in _UNSUPPORTED] and not started:
                yield from self._one_by_one()
                return
            if result < 0 and result != -errno.ENOENT:
                raise failure(-result, f"map {self.name}: look-up of many")
            if count.value:
                yield (
                    ctypes.string_at(keys, count.value * self.key_size),
                    ctypes.string_at(values, count.value * self._value_bytes),
                )
            if result < 0:
                return
            started = True

    def slice(self, first: int, count: int) -> bytes:
        """The values of an array's elements from `first` on, behind each other."""
        values = ctypes.create_string_buffer(count * self._value_bytes)
        keys = ctypes.create_string_buffer(count * self.key_size)
        position = ctypes.create_string_buffer(8)
        if first:
            position.raw = (first - 1).to_bytes(4, "little") + bytes(4)
        counter = c_uint32(count)
        start = position if first else None
        result = library().bpf_map_lookup_batch(
            self.fd, start, position, keys, values, ctypes.byref(counter), None
        )
        if result < 0 and result != -errno.ENOENT:  # ENOENT: reached the end
            raise failure(-result, f"map {self.name}: reading from {first} on")
        return values.raw[: counter.value * self._value_bytes]

    def copies(self, value: bytes) -> list[bytes]:
        """A per-CPU map's looked-up value, taken apart into one value a CPU."""
        return [
            value[start : start + self.value_size] for start in range(0, len(value), self.stride)
        ]

    def update_batch(self, keys: bytes, values: bytes) -> None:
        """Writes many elements, given behind each other; BatchError tells how far it came."""
        self._many("update", keys, values)

    def delete_batch(self, keys: bytes) -> None:
        """Deletes many elements; what is gone already is not an error."""
        self._many("deletion", keys, None)

    def mapped(self, first: int = 0, count: int | None = None, *, writable: bool) -> MappedArray:
        """A window on a mappable array; see MappedArray. Even one for reading takes a map that is
        open for writing: the kernel shares nothing else."""
        if count is None:
            count = self.max_entries - first
        return MappedArray(self.fd, self.name, self.stride, first, count, writable=writable)

    def _many(self, doing: str, keys: bytes, values: bytes | None) -> None:
        total, rest = divmod(len(keys), self.key_size)
        if rest or (values is not None and len(values) != total * self._value_bytes):
            raise ValueError(f"map {self.name}: {doing}: sizes do not fit")
        done = 0
        while done < total:
            result, count = self._call_many(keys, values, done, total - done)
            if result in [-code for code in _UNSUPPORTED] and count == 0:
                result, count = self._single(keys, values, done)
            done += count
            if result == 0:
                continue
            if values is None and result == -errno.ENOENT:
                done += 1
                continue
            cause = failure(-result, f"map {self.name}: {doing} of many, after {done}")
            error = BatchError(cause.errno, cause.strerror)
            error.done = done
            raise error

    def _call_many(
        self, keys: bytes, values: bytes | None, done: int, count: int
    ) -> tuple[int, int]:
        counter = c_uint32(count)
        head = keys[done * self.key_size :] if done else keys
        reference = ctypes.byref(counter)
        result: int
        if values is None:
            result = library().bpf_map_delete_batch(self.fd, head, reference, None)
        else:
            data = values[done * self._value_bytes :] if done else values
            result = library().bpf_map_update_batch(self.fd, head, data, reference, None)
        # the kernel leaves the counter alone when it refuses the call as a whole
        refused = result in [-code for code in _UNSUPPORTED] and counter.value == count
        return result, 0 if refused else counter.value

    def _single(self, keys: bytes, values: bytes | None, index: int) -> tuple[int, int]:
        key = keys[index * self.key_size : (index + 1) * self.key_size]
        if values is None:
            result: int = library().bpf_map_delete_elem(self.fd, key)
        else:
            width = self._value_bytes
            value = values[index * width : (index + 1) * width]
            result = self._update(self.fd, key, value, Update.ANY)
        return result, int(result == 0)

    def _one_by_one(self) -> Iterator[tuple[bytes, bytes]]:
        for key in self.keys():
            value = self.lookup(key)
            if value is not None:
                yield key, value

    def _buffers(self, room: int) -> tuple[Any, Any]:
        return (
            ctypes.create_string_buffer(room * self.key_size),
            ctypes.create_string_buffer(room * self._value_bytes),
        )

    def _check(self, key: bytes, value: bytes | None) -> None:
        if len(key) != self.key_size:
            raise ValueError(f"map {self.name}: a key has {self.key_size} bytes, not {len(key)}")
        if value is not None and len(value) != self._value_bytes:
            raise ValueError(
                f"map {self.name}: a value has {self._value_bytes} bytes, not {len(value)}"
            )

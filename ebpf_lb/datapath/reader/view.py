"""One family's pinned maps, opened for reading, and what turns their numbers into names."""

import functools
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from ebpf_lb.datapath import clock
from ebpf_lb.datapath.layout import Layout, MapSpec, Scope, load
from ebpf_lb.datapath.libbpf import Map, Program
from ebpf_lb.datapath.pins import Build, Pins
from ebpf_lb.errors import UserError
from ebpf_lb.model.values import Family, Protocol, format_endpoint

_INDEX = struct.Struct("=I")
_WINDOW_BYTES = 4 << 20
_BLOCK_BYTES = 16 << 10


class NothingPinned(UserError):
    """No data path is loaded there."""

    def __init__(self, root: Path) -> None:
        super().__init__(
            f"No data path is loaded: nothing is pinned in {root}. Has the agent run on this node?"
        )


def open_views(root: Path, families: list[Family]) -> "list[View]":
    """One view a family of the current build; NothingPinned if there is none."""
    build = Pins(root).current
    if not build.path.exists():
        raise NothingPinned(root)
    views = [View(build, family) for family in families if build.maps(family).exists()]
    if not views:
        raise NothingPinned(root)
    return views


class ServiceName(NamedTuple):
    """What `names` says about an id."""

    service: str  # namespace/name:port
    protocol: str


class View:
    """One family's maps. Each map is opened when it is asked for."""

    def __init__(self, build: Build, family: Family) -> None:
        self.family = family
        self.layout: Layout = load(family)
        self.build = build
        self._open: dict[str, Map | None] = {}

    def map(self, name: str) -> Map | None:
        """The map, read-only; None if this build has none of that name."""
        if name not in self._open:
            self._open[name] = self.open(name, read_only=True)
        return self._open[name]

    def program(self, name: str) -> Program:
        """One of the family's programs; FileNotFoundError if this build has none of that name."""
        return Program.open(self.build.programs(self.family) / name)

    def used_elements(self, name: str) -> Iterator[tuple[int, bytes]]:
        """Index and value of the elements of a mappable array that are not all zero.

        Made for large arrays that are nearly empty: looks at a few MiB at a time, since a mapping
        counts as memory at once, and passes over zeros by the page.
        """
        for first, stride, size, part in self.blocks(name):
            nothing = bytes(size)
            for offset in range(0, len(part), stride):
                value = part[offset : offset + size]
                if value != nothing:
                    yield first + offset // stride, value

    def blocks(self, name: str) -> Iterator[tuple[int, int, int, bytes]]:
        """Likewise, by blocks of elements: the first one's index, the distance from one to the
        next and the size of a value in bytes, and the bytes."""
        # the kernel maps only what is open for writing, even for reading
        opened = self.open(name, read_only=False)
        if opened is None:
            return
        stride = opened.stride
        block = max(_BLOCK_BYTES // stride, 1)
        zeros = bytes(block * stride)
        window = max(_WINDOW_BYTES // stride, 1)
        with opened:
            for first in range(0, opened.max_entries, window):
                here = min(window, opened.max_entries - first)
                with opened.mapped(first, here, writable=False) as mapped:
                    data = bytes(mapped.data)
                for start in range(0, len(data), len(zeros)):
                    part = data[start : start + len(zeros)]
                    if part != zeros[: len(part)]:
                        yield first + start // stride, stride, opened.value_size, part

    def open(self, name: str, *, read_only: bool) -> Map | None:
        """A map of its own for the caller to close; None if this build has none of that name."""
        spec = self.layout.maps.get(name)
        node = spec is not None and spec.scope is Scope.NODE
        path = self.build.maps(None if node else self.family) / name
        try:
            opened = Map.open(path, read_only=read_only)
        except FileNotFoundError:
            return None
        if spec is not None:
            self._check(spec, opened)
        return opened

    def rows(self, name: str) -> Iterator[tuple[Any, Any]]:
        """All elements of a map, key and value decoded. Of per-CPU maps, values are lists."""
        opened = self.map(name)
        if opened is None:
            return
        spec = self.layout.map(name)
        for key, value in opened.items():
            if opened.per_cpu:
                copies = [spec.value.unpack(copy) for copy in opened.copies(value)]
                yield spec.key.unpack(key), copies
            else:
                yield spec.key.unpack(key), spec.value.unpack(value)

    def element(self, name: str, index: int) -> Any:
        """One element of an array, decoded; None if there is no such map or element."""
        opened = self.map(name)
        value = opened.lookup(_INDEX.pack(index)) if opened else None
        return None if value is None else self.layout.map(name).value.unpack(value)

    @functools.cached_property
    def names(self) -> dict[int, ServiceName]:
        """Service id -> namespace/name:port and protocol."""
        found = {}
        for number, value in self.rows("names"):
            service, _, protocol = value.text.rpartition("/")
            found[number] = ServiceName(service, protocol)
        return dict(sorted(found.items(), key=lambda item: (item[1].service, item[1].protocol)))

    def service(self, number: int) -> str | None:
        """The name of a Service port; None for id 0, `#7` for one without a name."""
        if not number:
            return None
        name = self.names.get(number)
        return name.service if name else f"#{number}"

    def backend(self, number: int) -> str | None:
        """`address:port` of a backend id; None for none."""
        value = self.element("backends", number) if number else None
        return None if value is None else format_endpoint(value.address, value.port)

    @functools.cached_property
    def now(self) -> int | None:
        """The data path's tick; None without its clock program."""
        try:
            with self.program("clock") as program:
                return clock.now(program)
        except FileNotFoundError:
            return None

    def age_s(self, tick: int, bits: int) -> float | None:
        """Seconds since a tick of which `bits` were kept."""
        if self.now is None:
            return None
        ticks = (self.now - tick) % (1 << bits)
        return round(ticks / clock.ticks_per_second(), 1)

    def flags(self, enum: str, value: int) -> tuple[str, ...]:
        """The names of the bits that are set, without what they all begin with."""
        return tuple(name for name, bit in self.short(enum).items() if value & bit)

    def name_of(self, enum: str, value: int) -> str:
        """The name of a number without what they all begin with; `7` if it has none."""
        for name, number in self.short(enum).items():
            if number == value:
                return name
        return str(value)

    def short(self, enum: str) -> dict[str, int]:
        """Names and numbers of an enum, without what the names all begin with."""
        numbers = self.layout.enum(enum)
        whole, first = f"{enum.upper()}_", f"{enum.split('_')[0].upper()}_"
        prefix = whole if all(name.startswith(whole) for name in numbers) else first
        return {name.removeprefix(prefix): number for name, number in numbers.items()}

    def _check(self, spec: MapSpec, opened: Map) -> None:
        sizes = (opened.key_size, opened.value_size)
        if sizes != (spec.key_size, spec.value_size):
            raise UserError(
                f"The pinned map {spec.name} has another layout than this version of ebpf-lb knows:"
                " use the version that the agent on this node has."
            )


def protocol_name(number: int) -> str:
    """TCP, UDP, SCTP, or the number."""
    known = number in Protocol._value2member_map_
    return Protocol(number).name if known else str(number)

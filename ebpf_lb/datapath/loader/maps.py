"""The maps of a new build: those of the running one where they are what is wanted, else new ones.

Where only a capacity is another one, what is in the old map is copied as far as it fits. Services
are spread over many maps by the same numbers: if one of these maps must be new, all are, so that
the running programs go on with the old ones, whole and unchanged, until the agent has filled the
new ones.

bcc opens a pinned map of any shape without a word, so shapes are compared here, and the kernel's
own description is what counts. Where the same bytes mean something else than in the version before
(enum map_meaning in bpf/ground/layout.h), the map's name in the kernel tells.
"""

import logging
import random
from collections.abc import Callable, Mapping
from contextlib import ExitStack, suppress
from pathlib import Path

from ebpf_lb.datapath import layout
from ebpf_lb.datapath.layout import MapSpec, Scope
from ebpf_lb.datapath.libbpf import Map, MapType
from ebpf_lb.datapath.loader.programs import STACK, Unit, units
from ebpf_lb.datapath.loader.source import capacities
from ebpf_lb.datapath.pins import Build
from ebpf_lb.datapath.settings import Settings
from ebpf_lb.model.values import Family

_TYPES = {
    "hash": MapType.HASH,
    "array": MapType.ARRAY,
    "prog": MapType.PROG_ARRAY,
    "percpu_array": MapType.PERCPU_ARRAY,
    "percpu_hash": MapType.PERCPU_HASH,
    "lru_hash": MapType.LRU_HASH,
    "lpm_trie": MapType.LPM_TRIE,
    "ringbuf": MapType.RINGBUF,
}

# Meaningful only together: entries are found by a hash with that seed, at that index, and the
# census says how far the sweep has come in this very table.
_TIED = ("flow_seed", "flows", "ways", "census")
# Meaningful only together: the ids of a Service and of its backends stand in several of them.
_SERVICES = ("frontends", "services", "slots", "backends", "names", "source_ranges")
# What programs have written of clients and sockets, by keys that mean the same in every map.
_REMEMBERED = ("affinity", "sockets")
# How many of the flows lead to which backend, by its number.
_COUNTED = ("flows", "backends", "connections")
# The kernel marks every longest-prefix trie so; it must be asked for.
_ZERO = (0).to_bytes(4, "little")


_log = logging.getLogger(__name__)
_NAME_BYTES = 15  # what the kernel keeps of a map's name

Shape = tuple[int, int, int, int, int, str]
Move = Callable[[Build, Build, Family], None]
"""Copies Services from the maps of one build into those of another, as far as they fit."""


def shape(spec: MapSpec, sizes: dict[str, int], meanings: Mapping[str, int]) -> Shape:
    """Type, key and value size, entries, flags, name: as the kernel tells them."""
    entries = spec.max_entries if isinstance(spec.max_entries, int) else sizes[spec.max_entries]
    meaning = meanings.get(f"MEANING_{spec.name.upper()}", 0)
    name = f"{spec.name}_{meaning}" if meaning else spec.name
    return (
        _TYPES[spec.type],
        spec.key_size,
        spec.value_size,
        entries,
        spec.flags,
        name[:_NAME_BYTES],
    )


def kernel_shape(existing: Map) -> Shape:
    info = existing.info()
    # Bits that the kernel adds by itself for its own use are above those that can be asked for.
    flags = info.flags & 0x1FFF
    return (info.type, info.key_size, info.value_size, info.max_entries, flags, info.name)


def pinned_at(spec: MapSpec, family: Family, build: Build, unit: Unit = STACK) -> Path:
    """Where a map of a family is, for that unit's programs."""
    if spec.scope is Scope.CALLS:
        return build.calls(family, unit.name) / spec.name
    return build.maps(None if spec.scope is Scope.NODE else family) / spec.name


def _without_entries(shape: Shape) -> tuple[int | str, ...]:
    return (*shape[:3], *shape[4:])


def provide(
    family: Family,
    settings: Settings,
    old: Build,
    new: Build,
    sources: Path | None = None,
    move: Move | None = None,
) -> None:
    """Pins every map of a family under `new`, and sees that its flow table has a seed.

    A map of the running build is carried over where its shape is unchanged; the connection table
    only together with its seed, Services only as a whole. OSError names the map that could not be
    made.
    """
    sizes = capacities(settings)
    described = layout.load(family, sources)
    specs, meanings = described.maps, described.enum("map_meaning")
    wanted = {name: shape(spec, sizes, meanings) for name, spec in specs.items()}
    with ExitStack() as opened:
        found: dict[str, Map] = {}
        for name, spec in specs.items():
            if spec.scope is Scope.CALLS:
                continue  # every version has its own slow paths
            with suppress(OSError):
                found[name] = opened.enter_context(Map.open(pinned_at(spec, family, old)))
        _tell_others(family, wanted, found)
        kept = _pin(family, settings, specs, wanted, found, new)
        if "flows" in kept and "repliers" not in kept:
            _set_all_bits(new.maps(family) / "repliers")
        uncounted = "flows" in kept and "connections" not in kept
        _copy(family, wanted, found, old, new, move, count=uncounted)
    if not seed(family, new):
        fresh = random.SystemRandom().getrandbits(64) | 1
        with Map.open(new.maps(family) / "flow_seed") as seed_map:
            seed_map.update(_ZERO, fresh.to_bytes(8, "little"))


def _pin(
    family: Family,
    settings: Settings,
    specs: Mapping[str, MapSpec],
    wanted: Mapping[str, Shape],
    found: Mapping[str, Map],
    new: Build,
) -> set[str]:
    """Pins those of `found` that are to be kept, and new ones. Returns the names of the former."""
    kept = {name: one for name, one in found.items() if kernel_shape(one) == wanted[name]}
    for together, others in ((_TIED, ()), (_SERVICES, ("service_counters", "service_drops"))):
        if not all(name in kept for name in together):
            for name in (*together, *others):
                kept.pop(name, None)
    if not all(name in kept for name in _COUNTED):
        kept.pop("connections", None)
    for name, spec in specs.items():
        for unit in units(settings):
            path = pinned_at(spec, family, new, unit)
            if path.exists():
                continue  # shared with another unit, or with the other family
            if name in kept:
                path.parent.mkdir(parents=True, exist_ok=True)
                kept[name].pin(path)
            else:
                _make(wanted[name], path)
    return set(kept)


def _tell_others(family: Family, wanted: Mapping[str, Shape], found: Mapping[str, Map]) -> None:
    """Which maps another version has left, that reads the same bytes otherwise."""
    for name, one in found.items():
        held = kernel_shape(one)
        if held[:3] == wanted[name][:3] and held[5] != wanted[name][5]:
            lost = "; the connections in it are forgotten" if name in _TIED else ""
            _log.warning(
                "the %s map %s is another version's, in which it means something else: a new one "
                "is made%s",
                family.directory,
                name,
                lost,
            )


def _set_all_bits(path: Path) -> None:
    """Of a filter: for flows of before it was kept, some of them made while it is put to use."""
    with Map.open(path) as table:
        keys = b"".join(number.to_bytes(4, "little") for number in range(table.max_entries))
        table.update_batch(keys, b"\xff" * table.value_size * table.max_entries)


def _make(wanted: Shape, path: Path) -> None:
    type_, key_size, value_size, entries, flags, name = wanted
    path.parent.mkdir(parents=True, exist_ok=True)
    with Map.create(MapType(type_), key_size, value_size, entries, flags, name) as made:
        made.pin(path)


def _copy(
    family: Family,
    wanted: Mapping[str, Shape],
    found: Mapping[str, Map],
    old: Build,
    new: Build,
    move: Move | None,
    *,
    count: bool,
) -> None:
    """Into those maps that are new only because they have another size."""
    alike = {
        name
        for name, one in found.items()
        if _without_entries(kernel_shape(one)) == _without_entries(wanted[name])
    }
    resized = {name for name in alike if kernel_shape(found[name]) != wanted[name]}
    if move and alike.issuperset(_SERVICES) and not resized.isdisjoint(_SERVICES):
        move(old, new, family)
    for name in resized.intersection(_REMEMBERED):
        with Map.open(new.maps(family) / name) as table:
            for keys, values in found[name].chunks():
                table.update_batch(keys, values)
    if count and "connections" in alike:  # of the connections that go on
        with Map.open(new.maps(family) / "connections") as table:
            number = min(table.max_entries, found["connections"].max_entries)
            keys = b"".join(index.to_bytes(4, "little") for index in range(number))
            table.update_batch(keys, found["connections"].slice(0, number))


def provide_calls(
    family: Family, unit: Unit, settings: Settings, build: Build, sources: Path | None = None
) -> None:
    """Gives a build an empty program array for a unit that is added to it. OSError."""
    sizes = capacities(settings)
    described = layout.load(family, sources)
    for spec in described.maps.values():
        if spec.scope is not Scope.CALLS:
            continue
        path = pinned_at(spec, family, build, unit)
        path.unlink(missing_ok=True)  # of an attempt that was interrupted
        _make(shape(spec, sizes, described.enum("map_meaning")), path)


def seed(family: Family, build: Build) -> int:
    """That of the flow table's hash. OSError if the build has none."""
    with Map.open(build.maps(family) / "flow_seed") as seed_map:
        return int.from_bytes(seed_map.lookup(_ZERO) or b"", "little")

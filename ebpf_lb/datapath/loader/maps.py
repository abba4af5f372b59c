"""The maps of a new build: those of the running one where they are what is wanted, else new ones.

bcc opens a pinned map of any shape without a word, so shapes are compared here, and the kernel's
own description is what counts.
"""

import random
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
    "lru_hash": MapType.LRU_HASH,
    "lpm_trie": MapType.LPM_TRIE,
    "ringbuf": MapType.RINGBUF,
}

# Meaningful only together: entries are found by a hash with that seed, at that index, and the
# census says how far the sweep has come in this very table.
_TIED = ("flow_seed", "flows", "ways", "census")
# The kernel marks every longest-prefix trie so; it must be asked for.
_ZERO = (0).to_bytes(4, "little")


def shape(spec: MapSpec, sizes: dict[str, int]) -> tuple[int, int, int, int, int]:
    """Type, key and value size, entries, flags: as the kernel tells them."""
    entries = spec.max_entries if isinstance(spec.max_entries, int) else sizes[spec.max_entries]
    return (_TYPES[spec.type], spec.key_size, spec.value_size, entries, spec.flags)


def kernel_shape(existing: Map) -> tuple[int, int, int, int, int]:
    info = existing.info()
    # Bits that the kernel adds by itself for its own use are above those that can be asked for.
    return (info.type, info.key_size, info.value_size, info.max_entries, info.flags & 0x1FFF)


def pinned_at(spec: MapSpec, family: Family, build: Build, unit: Unit = STACK) -> Path:
    """Where a map of a family is, for that unit's programs."""
    if spec.scope is Scope.CALLS:
        return build.calls(family, unit.name) / spec.name
    return build.maps(None if spec.scope is Scope.NODE else family) / spec.name


def _carried(old: Path, wanted: tuple[int, int, int, int, int]) -> Map | None:
    try:
        existing = Map.open(old)
    except OSError:
        return None
    if kernel_shape(existing) == wanted:
        return existing
    existing.close()
    return None


def provide(
    family: Family, settings: Settings, old: Build, new: Build, sources: Path | None = None
) -> int:
    """Pins every map of a family under `new`, and returns the seed of its flow table.

    A map of the running build is carried over where its shape is unchanged; the connection table
    only together with its seed. OSError names the map that could not be made.
    """
    sizes = capacities(settings)
    specs = layout.load(family, sources).maps
    wanted = {name: shape(spec, sizes) for name, spec in specs.items()}
    kept: dict[str, Map] = {}
    for name, spec in specs.items():
        if spec.scope is Scope.CALLS:
            continue  # every version has its own slow paths
        carried = _carried(pinned_at(spec, family, old), wanted[name])
        if carried is not None:
            kept[name] = carried
    if not all(name in kept for name in _TIED):
        for name in _TIED:
            kept.pop(name, None)
    for name, spec in specs.items():
        type_, key_size, value_size, entries, flags = wanted[name]
        for unit in units(settings):
            path = pinned_at(spec, family, new, unit)
            if path.exists():
                continue  # shared with another unit, or with the other family
            path.parent.mkdir(parents=True, exist_ok=True)
            with kept.pop(name, None) or Map.create(
                MapType(type_), key_size, value_size, entries, flags, name
            ) as made:
                made.pin(path)
    with Map.open(new.maps(family) / "flow_seed") as seed_map:
        seed = int.from_bytes(seed_map.lookup(_ZERO) or b"", "little")
        if not seed:
            seed = random.SystemRandom().getrandbits(64) | 1
            seed_map.update(_ZERO, seed.to_bytes(8, "little"))
    return seed

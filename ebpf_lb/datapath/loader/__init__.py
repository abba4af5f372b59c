"""Brings the C programs into the kernel.

`ensure_loaded` compares what is pinned with what should be. Where they differ, the programs are
those that were compiled when ebpf-lb was built. Whoever has changed the sources gets them from the
cache of compiled ones, or from the compiler, which runs in processes of its own; all are loaded
the same way. A build becomes the current one by one rename, after everything in it has been
verified, so that a failure leaves the running data path as it was. The hooks change over when the
agent attaches the new programs; only then `retire_old_builds` lets go of the old ones.
"""

import functools
import json
import logging
import shutil
import threading
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from ebpf_lb.datapath import layout
from ebpf_lb.datapath.libbpf import Map
from ebpf_lb.datapath.loader import cache, loading, maps, objects, source
from ebpf_lb.datapath.loader.archive import Images
from ebpf_lb.datapath.loader.compilation import compile_images, source_line
from ebpf_lb.datapath.loader.errors import LoaderError
from ebpf_lb.datapath.loader.image import SEED
from ebpf_lb.datapath.loader.programs import LAYER_3, Unit, units
from ebpf_lb.datapath.pins import Build, Pins
from ebpf_lb.datapath.settings import Settings
from ebpf_lb.model.values import Family

__all__ = [
    "Loaded",
    "LoaderError",
    "compiled",
    "ensure_layer_3",
    "ensure_loaded",
    "lacking",
    "program_arrays",
    "retire_old_builds",
    "settings_of",
]

_LOG_LINES = 20

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Loaded:
    """`changed`: another build than the one that was current before. `compiled`: the compiler ran
    for it; else its programs came from the cache, or were in the kernel already. `apart`: hooks may
    still run an older build, whose Services stand in maps of their own: what is written reaches
    nobody until this build's programs are attached."""

    build: Build
    changed: bool
    compiled: bool = False
    apart: bool = False

    @property
    def build_id(self) -> str:
        return self.build.path.name


def ensure_loaded(
    bpffs: Path,
    settings: Settings,
    sources: Path | None = None,
    *,
    anew: bool = False,
    move: maps.Move | None = None,
    idle: threading.Event | None = None,
) -> Loaded:
    """Makes the build that belongs to the sources and `settings` the current one.

    bpffs: the node's folder, on a mounted bpffs; made if missing. sources: the folder of the C
    sources, by default the package's own. anew: what was compiled when ebpf-lb was built is not
    used. move: how Services come into maps of another size; default: they do not. idle: set when
    this process has nothing else to do; default: it has not, from the beginning. One caller at a
    time for each bpffs folder. LoaderError: the build could not be made; the current one is
    untouched.
    """
    pins = Pins(bpffs)
    sources = sources or layout.sources()
    name = source.build_id(settings, sources)
    build = pins.build(name)
    try:
        pins.builds.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise LoaderError(
            f"{bpffs} cannot be made: {error.strerror}; is a bpffs mounted there and are you root?"
        ) from error
    before = _current(pins)
    whole = _is_whole(build, settings, sources)
    if whole and before == name:
        return Loaded(build, changed=False, apart=_is_apart(pins, build))
    compiled = False
    if not whole:
        try:
            compiled = _make(pins, settings, sources, name, anew, move, idle)
        except OSError as error:
            raise LoaderError(f"the programs cannot be loaded: {error}") from error
    following = bpffs / "next"
    following.unlink(missing_ok=True)
    following.symlink_to(Path("builds") / name)
    following.rename(bpffs / "current")
    return Loaded(build, changed=True, compiled=compiled, apart=_is_apart(pins, build))


def ensure_layer_3(
    build: Build, settings: Settings, sources: Path | None = None, *, anew: bool = False
) -> bool:
    """Adds the programs for devices without Ethernet header to a build that has none of them yet.
    Few nodes need them, so nobody else waits for their verification.

    build, settings, sources, anew: as they were loaded. Returns whether the compiler ran.
    LoaderError: they could not be added; all else is untouched.
    """
    sources = sources or layout.sources()
    if _has_unit(build, LAYER_3, sources):
        return False
    try:
        images, compiled = _images(Pins(build.path.parents[1]), (LAYER_3,), sources, anew)
        for family in Family:
            maps.provide_calls(family, LAYER_3, settings, build, sources)
        _load(images, settings, build, sources)
    except OSError as error:
        raise LoaderError(
            f"the programs for devices without Ethernet header cannot be loaded: {error}"
        ) from error
    return compiled


def lacking(build: Build, settings: Settings, sources: Path | None = None) -> list[str]:
    """What a build does not have that it should, in sentences: pins, and slow paths in the program
    arrays."""
    sources = sources or layout.sources()
    found = []
    for unit in units(settings):
        if not _has_unit(build, unit, sources):
            found.append(f"not all of the {unit.name} programs and maps are pinned")
            continue
        for family in Family:
            held = Map.open(maps.pinned_at(_calls_of(family, sources), family, build, unit))
            with held:
                empty = sum(
                    held.lookup(index.to_bytes(4, "little")) is None for index in unit.calls(family)
                )
            if empty:
                found.append(f"{empty} {family.directory} slow paths of {unit.name} are missing")
    return found


def _calls_of(family: Family, sources: Path) -> layout.MapSpec:
    return next(one for one in _specs(family, sources) if one.scope is layout.Scope.CALLS)


def retire_old_builds(bpffs: Path) -> list[str]:
    """Unpins every build but the current one, and returns their ids.

    To be called when all hooks run the current build: a program array loses its content with its
    last pin, even while programs use it.
    """
    pins = Pins(bpffs)
    current = _current(pins)
    retired = []
    for folder in sorted(pins.builds.iterdir()):
        if current is not None and folder.name != current:
            shutil.rmtree(folder)
            retired.append(folder.name)
    return retired


def program_arrays(build: Build) -> list[Path]:
    """Where those of all units that are loaded are pinned."""
    return sorted(build.path.glob("*/*/calls"))


def _as_path(settings: Settings) -> Path:
    """NAME=VALUE/NAME=VALUE…, since whoever follows a link takes offence at long names."""
    return Path(*(f"{name}={json.dumps(value)}" for name, value in asdict(settings).items()))


def compiled(unit: Unit, sources: Path) -> Images | None:
    """A unit's images, shipped or cached; None where they would have to be compiled."""
    return objects.find(unit, sources) or cache.find(source.cache_key(unit, sources))


def settings_of(build: Build) -> Settings:
    """Those that a build was made with. LoaderError: it does not say so, or says what this version
    does not know."""
    try:
        told = (part.partition("=") for part in build.settings.readlink().parts)
        return Settings(**{name: json.loads(value) for name, _, value in told})
    except (OSError, ValueError, TypeError) as error:
        raise LoaderError(f"{build.path} was made by another version: {error}") from error


def _current(pins: Pins) -> str | None:
    try:
        target = pins.current.path.readlink()
    except OSError:
        return None
    return target.name if pins.current.path.exists() else None


def _is_whole(build: Build, settings: Settings, sources: Path) -> bool:
    """Is everything pinned? A retirement may have been interrupted."""
    return build.path.exists() and all(_has_unit(build, unit, sources) for unit in units(settings))


def _has_unit(build: Build, unit: Unit, sources: Path) -> bool:
    return all(
        path.exists()
        for family in Family
        for path in (
            *(maps.pinned_at(spec, family, build, unit) for spec in _specs(family, sources)),
            *(build.programs(family) / name for name in unit.programs[family]),
        )
    )


def _is_apart(pins: Pins, build: Build) -> bool:
    """Has another build that is not retired yet maps of its own for Services?"""
    own = _services_map(build)
    others = (Build(folder) for folder in pins.builds.iterdir() if folder != build.path)
    return any(_services_map(other) not in (own, None) for other in others)


def _services_map(build: Build) -> int | None:
    """The id of one for all of them, which are carried over together (maps.py)."""
    try:
        with Map.open(build.maps(Family.IPV4) / "services") as table:
            return table.id
    except OSError:
        return None


def _specs(family: Family, sources: Path) -> list[layout.MapSpec]:
    return list(layout.load(family, sources).maps.values())


def _make(
    pins: Pins,
    settings: Settings,
    sources: Path,
    name: str,
    anew: bool,
    move: maps.Move | None,
    idle: threading.Event | None,
) -> bool:
    """Makes the build under a temporary name, then gives it its own in one rename. Returns whether
    the compiler ran."""
    images, compiled = _images(pins, units(settings), sources, anew)
    new = pins.build(f"{name}_new")
    shutil.rmtree(new.path, ignore_errors=True)
    try:
        for family in Family:
            new.maps(family).mkdir(parents=True)
            new.programs(family).mkdir(parents=True)
        new.maps(None).mkdir(parents=True)
        for family in Family:
            maps.provide(family, settings, pins.current, new, sources, move)
        _load(images, settings, new, sources, idle)
        new.settings.symlink_to(_as_path(settings))
        final = pins.build(name).path
        if final.exists():
            # not whole, and perhaps still run by the hooks: to be retired with the others
            aside = pins.build(f"{name}_old").path
            shutil.rmtree(aside, ignore_errors=True)
            final.rename(aside)
        new.path.rename(final)
    except BaseException:
        shutil.rmtree(new.path, ignore_errors=True)
        raise
    return compiled


def _images(
    pins: Pins, wanted: Iterable[Unit], sources: Path, anew: bool
) -> tuple[dict[Unit, Images], bool]:
    """Images by unit, and whether the compiler ran for any."""
    images, compiled = {}, False
    for unit in wanted:
        shipped = None if anew else objects.find(unit, sources)
        if shipped is not None:
            images[unit] = shipped
            continue
        images[unit], ran = cache.images(
            source.cache_key(unit, sources),
            functools.partial(_compile, pins, unit, sources),
        )
        compiled = compiled or ran
    return images, compiled


def _compile(pins: Pins, unit: Unit, sources: Path) -> Images:
    _log.warning("the %s programs are compiled: none that were built fit %s", unit.name, sources)
    return compile_images(pins, unit, sources)


def _load(
    images: Mapping[Unit, Images],
    settings: Settings,
    build: Build,
    sources: Path,
    idle: threading.Event | None = None,
) -> None:
    """Loads units into a build that has its maps; LoaderError says where one is refused."""
    facts, functions = source.kernel_facts()
    everywhere = source.filled_in(settings) | facts
    numbers = {family: everywhere | {SEED: maps.seed(family, build)} for family in Family}
    try:
        loading.load(images, numbers, functions, build, sources, idle)
    except loading.RefusedError as refusal:
        family = refusal.family
        where = source_line(refusal.unit, family, sources, numbers[family], build, refusal.program)
        raise LoaderError(_explained(refusal, where)) from refusal


def _explained(refusal: loading.RefusedError, where: str | None) -> str:
    lines = refusal.log.rstrip().splitlines()[-_LOG_LINES:]
    return "\n".join([f"{refusal} at {where}" if where else f"{refusal}", *lines])

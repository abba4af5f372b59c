"""Builds: what makes one, what it takes over, and when none is made."""

import struct
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

import pytest

from ebpf_lb.datapath import clock, layout, loader
from ebpf_lb.datapath.layout import Scope
from ebpf_lb.datapath.libbpf import Map, MapType, Program
from ebpf_lb.datapath.loader import (
    Loaded,
    compilation,
    ensure_layer_3,
    ensure_loaded,
    program_arrays,
    retire_old_builds,
    settings_of,
)
from ebpf_lb.datapath.loader.image import Image
from ebpf_lb.datapath.loader.programs import LAYER_3, STACK, XDP, Unit
from ebpf_lb.datapath.pins import Build, Pins
from ebpf_lb.model.values import Family
from tests.capabilities import DATAPATH, needs
from tests.datapath.loader.small import (
    FAMILIES,
    LAYER_3_NAMES,
    SETTINGS,
    XDP_NAMES,
    map_ids,
    mix64,
    no_cache,
    program_ids,
    seed,
    shown_hash,
    state,
)

pytestmark = needs(*DATAPATH)


def calls_lead_to(unit: Unit, family: Family, build: Build) -> None:
    """The array of tail calls holds the very programs that are pinned."""
    with Map.open(build.calls(family, unit.name) / "calls") as calls:
        for index, (whose, name) in unit.calls(family).items():
            with Program.open(build.programs(whose) / name) as program:
                called = int.from_bytes(calls.lookup(struct.pack("=I", index)) or b"", "little")
                assert called == program.info().id, name


def test_a_build_is_whole_and_current(root: Path, sources: Path) -> None:
    loaded = ensure_loaded(root, SETTINGS, sources)
    assert loaded.changed
    assert (root / "current").resolve() == loaded.build.path
    assert [path.name for path in (root / "builds").iterdir()] == [loaded.build_id]
    for family in Family:
        pinned = {path.name for path in loaded.build.programs(family).iterdir()}
        assert pinned == set(STACK.programs[family])
        for name, spec in layout.load(family, sources).maps.items():
            scope = None if spec.scope is Scope.NODE else family
            with Map.open(loaded.build.maps(scope) / name) as table:
                assert (table.key_size, table.value_size) == (spec.key_size, spec.value_size)
        calls_lead_to(STACK, family, loaded.build)
    assert settings_of(loaded.build) == SETTINGS
    assert program_arrays(loaded.build)  # that link leads nowhere, and is in nobody's way


def test_unchanged_nothing_is_compiled_or_loaded(root: Path, sources: Path) -> None:
    first = ensure_loaded(root, SETTINGS, sources)
    before = state(root)
    again = ensure_loaded(root, SETTINGS, sources)
    assert again == Loaded(first.build, changed=False, compiled=False)
    assert state(root) == before


def test_other_settings_make_another_build_on_the_same_maps(root: Path, sources: Path) -> None:
    first = ensure_loaded(root, SETTINGS, sources)
    value = bytes(range(1, 129))
    with Map.open(first.build.maps(Family.IPV4) / "flows") as flows:
        flows.update(struct.pack("=I", 5), value)
    seeds = [seed(first.build, family) for family in Family]

    second = ensure_loaded(root, replace(SETTINGS, udp_s=61), sources)
    assert second.changed and second.build_id != first.build_id
    assert map_ids(second.build) == map_ids(first.build)
    assert [seed(second.build, family) for family in Family] == seeds
    with Map.open(second.build.maps(Family.IPV4) / "flows") as flows:
        assert flows.lookup(struct.pack("=I", 5)) == value
    # until the hooks have changed over, the old programs and their slow paths are there
    assert not set(program_ids(first.build).values()) & set(program_ids(second.build).values())
    assert retire_old_builds(root) == [first.build_id]
    assert state(root)[:2] == (f"builds/{second.build_id}", [second.build_id])
    assert retire_old_builds(root) == []


def test_settings_need_no_compiler(
    root: Path, sources: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Sizes and time-outs are put into what was compiled once."""
    main = sources / "programs/stack.c"
    shown = "(__u32)FLOW_SETS << 16 | TIMEOUT_UDP << 8 | TICK_SHIFT"
    main.write_text(main.read_text().replace("set ? hash >> 40 : 0", shown))
    ensure_loaded(root, SETTINGS, sources)
    monkeypatch.setattr(loader, "compile_images", None)
    for flows, udp_s in ((256, 10), (4096, 20), (1, 30)):
        settings = replace(SETTINGS, flows=flows, udp_s=udp_s)
        build = ensure_loaded(root, settings, sources).build
        ticks = round(udp_s * clock.ticks_per_second())
        expected = max(1, flows // 4) << 16 | ticks << 8 | clock.tick_shift()
        assert [shown_hash(build, family) for family in Family] == [expected] * 2
        with Map.open(build.maps(Family.IPV6) / "flows") as table:
            assert table.max_entries == max(1, flows // 4)


def test_xdp_is_a_unit_of_its_own(
    root: Path, sources: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody waits for what he does not want; and who wants it later, waits for that only."""
    no_cache(monkeypatch, tmp_path)
    compiled: list[str] = []

    def compile_images(pins: Pins, unit: Unit, folder: Path) -> Mapping[Family, Image]:
        compiled.append(unit.name)
        return compilation.compile_images(pins, unit, folder)

    monkeypatch.setattr(loader, "compile_images", compile_images)
    without = ensure_loaded(root, SETTINGS, sources)
    assert not XDP_NAMES & {path.name for path in without.build.path.glob("*/programs/*")}
    ids = map_ids(without.build)
    wanted = ensure_loaded(root, replace(SETTINGS, xdp=True), sources)
    assert compiled == ["stack", "xdp"]
    assert map_ids(wanted.build) == ids
    for family in Family:
        pinned = {path.name for path in wanted.build.programs(family).iterdir()}
        assert pinned == set(STACK.programs[family]) | XDP_NAMES
        calls_lead_to(XDP, family, wanted.build)
        for whose, name in XDP.calls(family).values():
            with Program.open(wanted.build.programs(whose) / name) as program:
                assert (program.info().type, program.info().name) == (6, name[:15])
    ipv6 = layout.load(Family.IPV4).enum("slow_path")["CALL_IPV6"]
    assert XDP.calls(Family.IPV4)[ipv6] == (Family.IPV6, "xdp_ingress")
    (wanted.build.calls(Family.IPV6, "xdp") / "calls").unlink()
    assert ensure_loaded(root, replace(SETTINGS, xdp=True), sources).changed
    assert ensure_loaded(root, SETTINGS, sources).changed
    assert compiled == ["stack", "xdp"]


def test_programs_without_link_header_are_added_on_demand(root: Path, sources: Path) -> None:
    loaded = ensure_loaded(root, SETTINGS, sources)
    before = map_ids(loaded.build), program_ids(loaded.build)
    assert not LAYER_3_NAMES & {path.name for path in loaded.build.path.glob("*/programs/*")}
    ensure_layer_3(loaded.build, SETTINGS, sources)
    assert (map_ids(loaded.build), program_ids(loaded.build)) == before
    for family in Family:
        calls_lead_to(LAYER_3, family, loaded.build)
        with Program.open(loaded.build.programs(family) / "l3_ingress") as program:
            assert program.test_run(bytes(64)).retval == 0  # LINK_HEADER_BYTES
            first = program.info().id
    # there already; another agent of this build finds them, too
    assert not ensure_layer_3(loaded.build, SETTINGS, sources)
    assert not ensure_loaded(root, SETTINGS, sources).changed
    with Program.open(loaded.build.programs(Family.IPV6) / "l3_ingress") as program:
        assert program.info().id == first


def test_an_interrupted_addition_is_made_again(root: Path, sources: Path) -> None:
    loaded = ensure_loaded(root, SETTINGS, sources)
    ensure_layer_3(loaded.build, SETTINGS, sources)
    lost = loaded.build.programs(Family.IPV6) / "l3_egress"
    lost.unlink()
    ensure_layer_3(loaded.build, SETTINGS, sources)
    for family in Family:
        calls_lead_to(LAYER_3, family, loaded.build)
    assert lost.exists()


def test_back_to_a_build_that_is_still_there(root: Path, sources: Path) -> None:
    first = ensure_loaded(root, SETTINGS, sources)
    ids = program_ids(first.build)
    ensure_loaded(root, replace(SETTINGS, udp_s=61), sources)
    back = ensure_loaded(root, SETTINGS, sources)
    assert back == Loaded(first.build, changed=True, compiled=False)
    assert program_ids(back.build) == ids
    assert (root / "current").resolve() == first.build.path


def test_a_flow_table_of_another_size_is_new_and_so_is_its_seed(root: Path, sources: Path) -> None:
    first = ensure_loaded(root, SETTINGS, sources)
    second = ensure_loaded(root, replace(SETTINGS, flows=512), sources)
    before, after = map_ids(first.build), map_ids(second.build)
    changed = {name for name in before if before[name] != after[name]}
    tied = ("flows", "ways", "flow_seed", "census", "connections")
    assert changed == {f"{family.directory}/{name}" for family in Family for name in tied}
    for family in Family:
        assert seed(second.build, family) != seed(first.build, family)
        with Map.open(second.build.maps(family) / "flows") as flows:
            assert flows.max_entries == 128


def test_flows_older_than_the_filter_of_replies_are_searched_for_by_all(
    root: Path, sources: Path
) -> None:
    def filters(loaded: Loaded) -> set[bytes]:
        with Map.open(loaded.build.maps(Family.IPV6) / "repliers") as table:
            return {value for _, value in table.items()}

    first = ensure_loaded(root, SETTINGS, sources)
    kept = ensure_loaded(root, replace(SETTINGS, udp_s=61), sources)
    assert filters(first) == filters(kept) == {bytes(8)}
    (kept.build.maps(Family.IPV6) / "repliers").unlink()
    other = ensure_loaded(root, replace(SETTINGS, udp_s=62), sources)
    assert filters(other) == {b"\xff" * 8}
    # none of those flows is in there any more
    (other.build.maps(Family.IPV6) / "repliers").unlink()
    fresh = ensure_loaded(root, replace(SETTINGS, flows=512), sources)
    assert filters(fresh) == {bytes(8)}


def test_services_in_maps_of_another_size_are_apart_until_the_old_build_is_retired(
    root: Path, sources: Path
) -> None:
    first = ensure_loaded(root, SETTINGS, sources)
    assert not first.apart and not ensure_loaded(root, replace(SETTINGS, udp_s=61), sources).apart
    retire_old_builds(root)
    other = replace(SETTINGS, udp_s=61, slots=32)
    before = map_ids(Pins(root).current)
    second = ensure_loaded(root, other, sources)
    assert second.changed and second.apart
    # also for an agent that starts after one that died before it had filled the maps
    again = ensure_loaded(root, other, sources)
    assert not again.changed and again.apart
    changed = {name for name, number in map_ids(second.build).items() if before[name] != number}
    together = ("frontends", "services", "slots", "backends", "names", "source_ranges")
    assert changed == {
        f"{family.directory}/{name}"
        for family in Family
        for name in (*together, "service_counters", "service_drops", "connections")
    }
    retire_old_builds(root)
    assert not ensure_loaded(root, other, sources).apart


@FAMILIES
def test_the_programs_hash_with_the_seed_in_the_map(
    new_root: Callable[[], Path], sources: Path, family: Family
) -> None:
    builds = [ensure_loaded(new_root(), SETTINGS, sources).build for _ in range(2)]
    assert seed(builds[0], family) != seed(builds[1], family)
    for build in builds:
        # the kernel counts a frame's Ethernet header at ingress
        assert shown_hash(build, family) == mix64(100 ^ seed(build, family)) >> 40


def test_code_may_take_the_seed_apart(root: Path, sources: Path) -> None:
    main = sources / "programs/stack.c"
    main.write_text(main.read_text().replace("hash >> 40", "(FLOW_SEED >> 32) & 0x7fffffff"))
    build = ensure_loaded(root, SETTINGS, sources).build
    for family in Family:
        assert shown_hash(build, family) == seed(build, family) >> 32 & 0x7FFFFFFF


@pytest.mark.parametrize(
    ("type_", "key_size", "value_size", "entries", "flags"),
    [
        (MapType.HASH, 8, 4, 63, 1),
        (MapType.HASH, 8, 8, 64, 1),
        (MapType.LRU_HASH, 8, 4, 64, 0),
        (MapType.HASH, 8, 4, 64, 0),
    ],
    ids=["entries", "value", "type", "flags"],
)
def test_a_pinned_map_of_another_shape_is_not_used(
    root: Path, sources: Path, type_: MapType, key_size: int, value_size: int, entries: int,
    flags: int,
) -> None:  # fmt: skip
    first = ensure_loaded(root, SETTINGS, sources)
    path = first.build.maps(Family.IPV4) / "frontends"
    path.unlink()
    with Map.create(type_, key_size, value_size, entries, flags, "frontends") as other:
        other.pin(path)
        foreign = other.id
    second = ensure_loaded(root, replace(SETTINGS, udp_s=61), sources)
    with Map.open(second.build.maps(Family.IPV4) / "frontends") as table:
        assert table.id != foreign
        shape = (table.type, table.key_size, table.value_size, table.max_entries, table.flags)
        assert shape == (MapType.HASH, 8, 4, 64, 1)


def test_a_build_that_lost_a_pin_is_made_again(root: Path, sources: Path) -> None:
    first = ensure_loaded(root, SETTINGS, sources)
    ids = map_ids(first.build)
    (first.build.programs(Family.IPV6) / "pod_egress").unlink()
    again = ensure_loaded(root, SETTINGS, sources)
    assert again.changed and again.build == first.build
    assert map_ids(again.build) == ids and len(program_ids(again.build)) > 30
    assert retire_old_builds(root) == [f"{first.build_id}_old"]

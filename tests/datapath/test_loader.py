"""The loader on the running kernel: what it reuses, what it makes anew, and how it fails.

The sources are the real headers with a small main file, which compiles in a second.
"""

import ipaddress
import json
import os
import re
import shutil
import struct
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path

import pytest

from ebpf_lb.datapath import layout, loader
from ebpf_lb.datapath.layout import Scope
from ebpf_lb.datapath.libbpf import Map, MapType, Program
from ebpf_lb.datapath.loader import (
    Loaded,
    LoaderError,
    cache,
    compilation,
    ensure_layer_3,
    ensure_loaded,
    retire_old_builds,
    source,
)
from ebpf_lb.datapath.loader.image import Image
from ebpf_lb.datapath.loader.programs import LAYER_3, STACK, XDP, Unit
from ebpf_lb.datapath.pins import Build, Pins
from ebpf_lb.datapath.settings import Settings
from ebpf_lb.model.values import Family
from tests.capabilities import DATAPATH, needs
from tests.datapath.conftest import SETTINGS as PACKETS
from tests.datapath.kernel import Kernel
from tests.support.packets import Packet

pytestmark = needs(*DATAPATH)

SETTINGS = Settings(flows=256, frontends=64, services=64, backends=64, slots=64, affinity=64,
                    fragments=64, sockets=64, source_ranges=64)  # fmt: skip
FAMILIES = pytest.mark.parametrize("family", list(Family), ids=lambda family: family.directory)

LAYER_3_NAMES = set(LAYER_3.programs[Family.IPV4])
XDP_NAMES = set(XDP.programs[Family.IPV4])

# `pod_ingress` shows the seed as the hash uses it, of a packet's length.
MAIN = """#include "base.h"
#include "layout.h"
#include "reason.h"
#include "maps.h"
#include "hash.h"

int pod_ingress(struct __sk_buff *skb)
{
	__u64 hash = mix64(skb->len ^ FLOW_SEED);
	struct flow_set *set = flow_set_get(hash & (FLOW_SETS - 1));

	return set ? hash >> 40 : 0;
}
"""


def small_sources(folder: Path) -> Path:
    shutil.copytree(layout.sources(), folder)
    functions = []
    for name in STACK.programs[Family.IPV4]:
        if name != "pod_ingress":
            cgroup = name.endswith(("4", "6"))
            context = "bpf_sock_addr *ctx" if cgroup else "__sk_buff *skb"
            function = f"int {name}(struct {context})\n{{\n\treturn {int(cgroup)};\n}}\n"
            functions.append(
                f"#if FAMILY == 4\n{function}#endif\n" if name.endswith("4") else function
            )
    (folder / "ebpf_lb.c").write_text(MAIN + "\n" + "\n".join(functions))
    functions = [f"int {name}(struct xdp_md *ctx)\n{{\n\treturn 2;\n}}\n" for name in XDP_NAMES]
    includes = MAIN.partition("int ")[0]
    (folder / "ebpf_lb_xdp.c").write_text(includes + "\n".join(functions))
    functions = [f"int {name}(struct __sk_buff *skb)\n{{\n\treturn LINK_HEADER_BYTES;\n}}\n"
                 for name in LAYER_3.programs[Family.IPV4]]  # fmt: skip
    (folder / "ebpf_lb_l3.c").write_text(includes + "\n".join(functions))
    return folder


@pytest.fixture(scope="module")
def module_cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("loader") / "cache"


@pytest.fixture
def sources(tmp_path: Path, module_cache: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Sources of the test's own; programs that another test of this file compiled are found."""
    monkeypatch.setenv("EBPF_LB_CACHE", str(module_cache))
    return small_sources(tmp_path / "bpf")


@pytest.fixture
def new_root() -> Iterator[Callable[[], Path]]:
    made: list[Path] = []

    def make() -> Path:
        made.append(Path(f"/sys/fs/bpf/ebpf-lb-loader-{os.getpid()}-{len(made)}"))
        return made[-1]

    try:
        yield make
    finally:
        for folder in made:
            shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def root(new_root: Callable[[], Path]) -> Path:
    return new_root()


def no_cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    folder = tmp_path / "cache"
    monkeypatch.setenv("EBPF_LB_CACHE", str(folder))
    return folder


def program_ids(build: Build) -> dict[str, int]:
    ids = {}
    for family in Family:
        for name in STACK.programs[family]:
            with Program.open(build.programs(family) / name) as program:
                ids[f"{family.directory}/{name}"] = program.info().id
    return ids


def map_ids(build: Build) -> dict[str, int]:
    """The ids of all maps but `calls`, of which every build has its own."""
    ids = {}
    for path in sorted(build.path.glob("*/maps/*")):
        if path.name != "calls":
            with Map.open(path) as table:
                ids[f"{path.parent.parent.name}/{path.name}"] = table.id
    return ids


def seed(build: Build, family: Family) -> int:
    with Map.open(build.maps(family) / "flow_seed") as table:
        return int.from_bytes(table.lookup(bytes(4)) or b"", "little")


def mix64(x: int) -> int:
    """MurmurHash3's finisher."""
    for factor in (0xFF51AFD7ED558CCD, 0xC4CEB9FE1A85EC53):
        x = ((x ^ x >> 33) * factor) % 2**64
    return x ^ x >> 33


def shown_hash(build: Build, family: Family) -> int:
    with Program.open(build.programs(family) / "pod_ingress") as program:
        return program.test_run(bytes(100)).retval


def state(root: Path) -> tuple[str, list[str], dict[str, int]]:
    """All that a failed attempt must leave as it was."""
    folders = sorted(path.name for path in (root / "builds").iterdir())
    return str((root / "current").readlink()), folders, program_ids(Pins(root).current)


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
        with Map.open(loaded.build.maps(family) / "calls") as calls:
            for index, name in STACK.slow_paths.items():
                with Program.open(loaded.build.programs(family) / name) as program:
                    called = int.from_bytes(calls.lookup(struct.pack("=I", index)) or b"", "little")
                    assert called == program.info().id, name


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


def test_xdp_is_a_unit_of_its_own(
    root: Path, sources: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody waits for what he does not want; and who wants it later, waits for that only."""
    no_cache(monkeypatch, tmp_path)
    compiled: list[str] = []

    def compile_images(
        pins: Pins, unit: Unit, settings: Settings, folder: Path
    ) -> Mapping[Family, Image]:
        compiled.append(unit.name)
        return compilation.compile_images(pins, unit, settings, folder)

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
        with Map.open(wanted.build.calls(family, "xdp") / "calls") as calls:
            for index, (whose, name) in XDP.calls(family).items():
                with Program.open(wanted.build.programs(whose) / name) as program:
                    called = int.from_bytes(calls.lookup(struct.pack("=I", index)) or b"", "little")
                    assert called == program.info().id, name
                    assert (program.info().type, program.info().name) == (6, name[:15])
    assert XDP.calls(Family.IPV4)[15] == (Family.IPV6, "xdp_ingress")
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
        with Map.open(loaded.build.calls(family, "l3") / "calls") as calls:
            for index, name in LAYER_3.slow_paths.items():
                with Program.open(loaded.build.programs(family) / name) as program:
                    called = int.from_bytes(calls.lookup(struct.pack("=I", index)) or b"", "little")
                    assert called == program.info().id, name
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
        with (
            Map.open(loaded.build.calls(family, "l3") / "calls") as calls,
            Program.open(loaded.build.programs(family) / "l3_ingress") as program,
        ):
            called = int.from_bytes(calls.lookup(struct.pack("=I", 6)) or b"", "little")
            assert called == program.info().id
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
    tied = ("flows", "ways", "flow_seed", "census")
    assert changed == {f"{family.directory}/{name}" for family in Family for name in tied}
    for family in Family:
        assert seed(second.build, family) != seed(first.build, family)
        with Map.open(second.build.maps(family) / "flows") as flows:
            assert flows.max_entries == 128


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
        for name in (*together, "service_counters")
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
    main = sources / "ebpf_lb.c"
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


def broken(sources: Path, file: str, old: str, new: str) -> int:
    """Replaces a text that stands there once; returns its line."""
    path = sources / file
    before, after = path.read_text().split(old)
    path.write_text(before + new + after)
    return before.count("\n") + 1


def refused(root: Path, sources: Path) -> str:
    """What the loader says of sources that do not work; all the rest is as it was."""
    before = state(root)
    with pytest.raises(LoaderError) as caught:
        ensure_loaded(root, SETTINGS, sources)
    assert state(root) == before
    assert [path.name for path in root.iterdir() if path.name not in ("builds", "current")] == []
    return str(caught.value)


def test_a_syntax_error_is_shown_with_file_and_line(root: Path, sources: Path) -> None:
    ensure_loaded(root, SETTINGS, sources)
    line = broken(sources, "hash.h", "x *= 0xff51afd7ed558ccdULL;", "x *= no_such_thing;")
    message = refused(root, sources)
    assert message.startswith("the ipv4 programs cannot be compiled: ")
    assert f"hash.h:{line}:" in message and "no_such_thing" in message
    assert "Traceback" not in message


def test_a_refusal_of_the_verifier_is_shown_with_the_source_line(root: Path, sources: Path) -> None:
    ensure_loaded(root, SETTINGS, sources)
    broken(sources, "ebpf_lb.c", "return set ? hash >> 40 : 0;", "return first_word(set);")
    line = broken(
        sources,
        "hash.h",
        "/* The finisher of MurmurHash3",
        "INLINE __u64 first_word(void *set)\n{\n\treturn *(__u64 *)set;\n}\n\n/* The finisher",
    )
    message = refused(root, sources)
    head, *log = message.splitlines()
    assert re.fullmatch(
        r"the kernel refuses the ipv[46] program pod_ingress: Permission denied at "
        rf"hash\.h:{line + 2}: return \*\(__u64 \*\)set;",
        head,
    )
    assert len(log) <= 20 and any("map_value_or_null" in row for row in log)


def test_layouts_that_the_compiler_sees_otherwise_are_noticed(root: Path, sources: Path) -> None:
    ensure_loaded(root, SETTINGS, sources)
    # our reader does not look into the main file, so it knows nothing of this
    broken(sources, "ebpf_lb.c", '#include "layout.h"', '#define bridge other\n#include "layout.h"')
    message = refused(root, sources)
    assert "interfaces's value: field bridge lies elsewhere for the compiler" in message


def test_sizes_that_the_compiler_sees_otherwise_are_noticed(root: Path, sources: Path) -> None:
    ensure_loaded(root, SETTINGS, sources)
    broken(sources, "ebpf_lb.c", '#include "maps.h"', '#define HASH_ON_DEMAND 0\n#include "maps.h"')
    broken(sources, "maps.h", "#define HASH_ON_DEMAND 1 ", "#ifndef HASH_ON_DEMAND\n#define HASH_ON_DEMAND 1\n#endif ")  # fmt: skip # noqa: E501
    assert "map frontends has 64 entries and flags 0x0 for the compiler" in refused(root, sources)


def run_loader(root: Path, sources: Path, **environment: str) -> subprocess.Popen[str]:
    """ensure_loaded in a process of its own; prints whether it compiled, and if bcc is there."""
    code = (
        "import json, sys; from pathlib import Path\n"
        "from ebpf_lb.datapath.loader import ensure_loaded\n"
        "from ebpf_lb.datapath.settings import Settings\n"
        "root, sources, settings = sys.argv[1:]\n"
        "loaded = ensure_loaded(Path(root), Settings(**json.loads(settings)), Path(sources))\n"
        "print(json.dumps([loaded.compiled, 'bcc' in sys.modules]))\n"
    )
    settings = {name: getattr(SETTINGS, name) for name in SETTINGS.__slots__}
    command = [sys.executable, "-c", code, str(root), str(sources), json.dumps(settings)]
    return subprocess.Popen(
        command,
        env=os.environ | environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_from_the_cache_bcc_is_never_imported(
    new_root: Callable[[], Path], sources: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "fake" / "bcc").mkdir(parents=True)
    (tmp_path / "fake" / "bcc" / "__init__.py").write_text("raise ImportError('not this one')\n")
    fake = {"PYTHONPATH": str(tmp_path / "fake")}
    ensure_loaded(new_root(), SETTINGS, sources)

    from_cache = run_loader(new_root(), sources, **fake)
    output, errors = from_cache.communicate(timeout=60)
    assert (from_cache.returncode, output) == (0, "[false, false]\n"), errors

    # and where there is none, it is the fake one that would be imported
    no_cache(monkeypatch, tmp_path)
    compiling = run_loader(new_root(), sources, **fake)
    _, errors = compiling.communicate(timeout=60)
    assert compiling.returncode != 0
    assert "bcc's Python module is missing: install the distribution's package" in errors


def test_loaders_at_the_same_time_compile_once(
    new_root: Callable[[], Path], sources: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    no_cache(monkeypatch, tmp_path)
    running = [run_loader(new_root(), sources) for _ in range(3)]
    outputs = [process.communicate(timeout=120) for process in running]
    assert sorted(output for output, _ in outputs) == [
        "[false, false]\n", "[false, false]\n", "[true, false]\n"
    ], outputs  # fmt: skip


def test_a_damaged_cache_is_made_anew(
    new_root: Callable[[], Path], sources: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = no_cache(monkeypatch, tmp_path)
    assert ensure_loaded(new_root(), SETTINGS, sources).compiled
    (file,) = (path for path in folder.iterdir() if path.name != "lock")
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 0xFF
    file.write_bytes(data)
    assert ensure_loaded(new_root(), SETTINGS, sources).compiled
    assert not ensure_loaded(new_root(), SETTINGS, sources).compiled


def test_the_installed_sources_give_the_same_code_for_any_seed(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Filling in another seed gives what compiling with that seed gives."""
    pins, folder = Pins(root), layout.sources()
    pins.builds.mkdir(parents=True)

    def compiled() -> cache.Images:
        return compilation.compile_images(pins, STACK, PACKETS, folder)

    # the same settings as the packet tests', so that they are compiled already
    usual, _ = cache.images(source.cache_key(STACK, PACKETS, folder), compiled)
    monkeypatch.setattr(compilation, "PLACEHOLDER_SEED", 0x1D872B41_C6A4A793)
    assert compiled() == usual
    assert all(image["pod_ingress"].seeds for image in usual.values())
    assert list(pins.builds.iterdir()) == []


def test_a_flow_that_a_program_wrote_is_read_as_bytes_and_as_fields(kernel: Kernel) -> None:
    addresses = {
        Family.IPV4: ("10.244.1.2", "10.96.0.20", "10.244.2.7"),
        Family.IPV6: ("fd00:10:244:1::2", "fd00:10:96::20", "fd00:10:244:2::7"),
    }[kernel.family]
    client, vip, backend = addresses
    service = kernel.service(vip, 80, [(backend, 9376)])
    assert kernel.run("pod_ingress", Packet(client, vip, 40000, 80)).passed

    with kernel.open("flows") as table:
        (value,) = (value for _, value in table.items() if value.strip(b"\0"))
    size = 32 if kernel.family is Family.IPV4 else 64
    (entry,) = (value[at : at + size] for at in range(0, 4 * size, size) if any(value[at:][:size]))
    assert entry[8:] == (
        b"".join(ipaddress.ip_address(address).packed for address in addresses)
        + bytes.fromhex("9c40 0050 24a0 0000")
    ).ljust(size - 8, b"\0")
    state, protocol = entry[3] & 7, entry[3] >> 3 & 3
    assert (state, protocol) == (3, 1)  # NEW, TCP
    assert int.from_bytes(entry[4:6], "little") == kernel.writer.service_id(service)

    read = kernel.layout.struct("flow").unpack(entry)
    assert read.word == int.from_bytes(entry[:8], "little")
    assert (read.client, read.vip, read.backend) == tuple(
        ipaddress.ip_address(address).packed for address in addresses
    )
    assert (read.client_port, read.vip_port, read.backend_port) == (40000, 80, 9376)
    assert read.snat_port == 0

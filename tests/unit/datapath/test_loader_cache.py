"""The cache of compiled programs: what is taken from it, what is not, and that one compiles."""

import dataclasses
import os
import shutil
import threading
import time
from pathlib import Path

import pytest

from ebpf_lb.datapath import layout
from ebpf_lb.datapath.loader import cache, objects, source
from ebpf_lb.datapath.loader.image import Image, ProgramImage
from ebpf_lb.datapath.loader.programs import STACK, UNITS, XDP
from ebpf_lb.datapath.loader.programs import unit as unit_named
from ebpf_lb.datapath.settings import Settings
from ebpf_lb.model.values import Family


def made(code: bytes = b"12345678") -> dict[Family, Image]:
    program = ProgramImage(code, {0: "flows"}, {2: "FLOW_SEED", 4: "FLOW_SETS"})
    return {family: {"program": program} for family in Family}


class Compiler:
    """Counts how often it is asked."""

    def __init__(self, result: dict[Family, Image] | None = None, takes_s: float = 0) -> None:
        self.result = made() if result is None else result
        self.takes_s = takes_s
        self.runs = 0

    def __call__(self) -> dict[Family, Image]:
        self.runs += 1
        time.sleep(self.takes_s)
        return self.result


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "cache"
    monkeypatch.setenv(cache.VARIABLE, str(folder))
    return folder


def test_compiled_once_and_the_same_afterwards(folder: Path) -> None:
    compiler = Compiler()
    assert cache.images("key", compiler) == (made(), True)
    assert cache.images("key", compiler) == (made(), False)
    assert compiler.runs == 1
    assert folder.stat().st_mode & 0o777 == 0o700


def test_another_key_is_compiled(folder: Path) -> None:
    cache.images("key", Compiler())
    other = made(b"abcdefgh")
    assert cache.images("other", Compiler(other)) == (other, True)
    assert cache.images("key", Compiler()) == (made(), False)


@pytest.mark.parametrize(
    "damage",
    [
        lambda data: data[:-1],
        lambda data: data[:-1] + bytes([data[-1] ^ 1]),
        lambda data: data.replace(b"programs 2", b"programs 0", 1),
        lambda data: b"",
        lambda data: b"something else\n" + data,
    ],
    ids=["cut", "one bit", "version", "empty", "foreign"],
)
def test_a_damaged_file_is_made_anew(folder: Path, damage: object) -> None:
    cache.images("key", Compiler())
    whole = (folder / "key").read_bytes()
    (folder / "key").write_bytes(damage(whole))  # type: ignore[operator]
    compiler = Compiler()
    assert cache.images("key", compiler) == (made(), True)
    assert compiler.runs == 1
    assert (folder / "key").read_bytes() == whole


def test_errors_of_the_compiler_come_through_and_nothing_is_kept(folder: Path) -> None:
    def fails() -> dict[Family, Image]:
        raise ValueError("a reason")

    with pytest.raises(ValueError, match="a reason"):
        cache.images("key", fails)
    assert cache.images("key", Compiler()) == (made(), True)


@pytest.mark.parametrize("mode", [0o770, 0o707, 0o755])
def test_a_folder_that_is_not_ours_alone_is_not_used(folder: Path, mode: int) -> None:
    cache.images("key", Compiler())
    folder.chmod(mode)
    compiler = Compiler()
    assert cache.images("key", compiler) == (made(), True)
    assert compiler.runs == 1


def test_neither_is_a_link_to_one(folder: Path, tmp_path: Path) -> None:
    cache.images("key", Compiler())
    folder.rename(tmp_path / "real")
    folder.symlink_to(tmp_path / "real")
    assert cache.images("key", Compiler()) == (made(), True)


def test_without_a_usable_folder_it_is_compiled_every_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv(cache.VARIABLE, str(tmp_path / "file" / "cache"))
    compiler = Compiler()
    for _ in range(2):
        assert cache.images("key", compiler) == (made(), True)
    assert compiler.runs == 2


def test_those_used_last_are_kept(folder: Path) -> None:
    for number in range(16):
        cache.images(f"key{number}", Compiler())
        os.utime(folder / f"key{number}", (number, number))  # long ago, one after the other
    cache.images("key0", Compiler())  # used again
    cache.images("key16", Compiler())
    kept = sorted(path.name for path in folder.iterdir())
    assert kept == sorted(["key0", *(f"key{number}" for number in range(2, 17)), "lock"])


def test_one_compiles_and_the_others_wait_for_it(folder: Path) -> None:
    compiler = Compiler(takes_s=0.2)
    results: list[tuple[cache.Images, bool]] = []
    threads = [
        threading.Thread(target=lambda: results.append(cache.images("key", compiler)))
        for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert compiler.runs == 1
    assert sorted(compiled for _, compiled in results) == [False, False, False, True]
    assert all(images == made() for images, _ in results)


def test_no_setting_of_a_node_is_compiled_in() -> None:
    """But each makes another build: other programs run, or in other maps."""
    for field in dataclasses.fields(Settings):
        other = Settings(**{"xdp": True, field.name: 0 if field.name == "xdp" else 99})
        assert source.build_id(other) != source.build_id(Settings(xdp=True)), field.name


def test_a_key_names_the_sources(tmp_path: Path) -> None:
    folder = shutil.copytree(layout.sources(), tmp_path / "bpf")
    for key in (source.cache_key, source.object_key):
        before = {unit.name: key(unit, folder) for unit in UNITS}
        assert before == {unit.name: key(unit, layout.sources()) for unit in UNITS}
        assert len(set(before.values())) == len(UNITS)
        main = folder / XDP.main
        text = main.read_text()
        main.write_text(text + "/* other */\n")
        changed = {name for name in before if key(unit_named(name), folder) != before[name]}
        assert changed == {"xdp"}
        main.write_text(text)


def test_what_was_built_is_found_with_its_sources_only(tmp_path: Path) -> None:
    folder = shutil.copytree(layout.sources(), tmp_path / "bpf")
    built = tmp_path / "objects"
    assert objects.find(STACK, folder, built) is None
    first = objects.keep(STACK, folder, made(), built)
    objects.keep(XDP, folder, made(b"abcdefgh"), built)
    assert objects.find(STACK, folder, built) == made()
    main = folder / STACK.main
    main.write_text(main.read_text() + "/* other */\n")
    assert objects.find(STACK, folder, built) is None
    objects.keep(STACK, folder, made(b"12341234"), built)
    assert objects.find(STACK, folder, built) == made(b"12341234")
    assert not first.exists() and objects.find(XDP, folder, built) == made(b"abcdefgh")
    (path,) = built.glob("stack-*")
    path.write_bytes(path.read_bytes()[:-1])
    assert objects.find(STACK, folder, built) is None

"""Compiled programs in the cache: without bcc, by several loaders, damaged."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from ebpf_lb.datapath.loader import ensure_loaded
from tests.capabilities import DATAPATH, needs
from tests.datapath.loader.small import SETTINGS, no_cache

pytestmark = needs(*DATAPATH)


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
    output, errors = from_cache.communicate(timeout=600)
    assert (from_cache.returncode, output) == (0, "[false, false]\n"), errors

    # and where there is none, it is the fake one that would be imported
    no_cache(monkeypatch, tmp_path)
    compiling = run_loader(new_root(), sources, **fake)
    _, errors = compiling.communicate(timeout=600)
    assert compiling.returncode != 0
    assert "bcc's Python module is missing." in errors


def test_loaders_at_the_same_time_compile_once(
    new_root: Callable[[], Path], sources: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    no_cache(monkeypatch, tmp_path)
    running = [run_loader(new_root(), sources) for _ in range(3)]
    outputs = [process.communicate(timeout=600) for process in running]
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

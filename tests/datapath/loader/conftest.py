"""Small sources with a cache of their own, and bpffs folders that are removed."""

import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.datapath.loader.small import small_sources


@pytest.fixture(scope="session")
def shared_cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("loader") / "cache"


@pytest.fixture
def sources(tmp_path: Path, shared_cache: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Sources of the test's own; programs that another test compiled are found."""
    monkeypatch.setenv("EBPF_LB_CACHE", str(shared_cache))
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

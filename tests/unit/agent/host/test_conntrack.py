"""Limits of the kernel's connection tracking: raised where lower, never lowered, never an error."""

import os
from pathlib import Path

import pytest

from ebpf_lb.agent.host.conntrack import Conntrack, raise_limits

AS_KUBE_PROXY = Conntrack(
    max_per_core=32_768, min=131_072, tcp_established_s=86_400, tcp_close_wait_s=3600
)
ENTRIES = max(32_768 * (os.cpu_count() or 1), 131_072)


def kernel(folder: Path, **values: int) -> Path:
    for name, value in values.items():
        (folder / f"nf_conntrack_{name}").write_text(f"{value}\n")
    (folder / "hashsize").write_text("1024\n")
    return folder


def value(folder: Path, name: str) -> int:
    return int((folder / f"nf_conntrack_{name}").read_text())


def test_lower_values_are_raised_and_higher_ones_kept(tmp_path: Path) -> None:
    kernel(tmp_path, max=1000, tcp_timeout_established=432_000, tcp_timeout_close_wait=60)
    assert raise_limits(AS_KUBE_PROXY, tmp_path, tmp_path / "hashsize") == []
    assert value(tmp_path, "max") == ENTRIES
    assert value(tmp_path, "tcp_timeout_established") == 432_000
    assert value(tmp_path, "tcp_timeout_close_wait") == 3600
    assert int((tmp_path / "hashsize").read_text()) == ENTRIES // 4


def test_zero_leaves_a_value_alone(tmp_path: Path) -> None:
    kernel(tmp_path, max=1000, tcp_timeout_established=10, tcp_timeout_close_wait=60)
    nothing = Conntrack(max_per_core=0, min=131_072, tcp_established_s=0, tcp_close_wait_s=0)
    assert raise_limits(nothing, tmp_path, tmp_path / "hashsize") == []
    assert (value(tmp_path, "max"), value(tmp_path, "tcp_timeout_close_wait")) == (1000, 60)


def test_a_kernel_that_tracks_nothing_is_left_alone(tmp_path: Path) -> None:
    assert raise_limits(AS_KUBE_PROXY, tmp_path / "none", tmp_path / "neither") == []
    assert list(tmp_path.iterdir()) == []


def test_what_cannot_be_set_is_said_and_the_rest_is_set(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As in a network namespace of its own, where the table's size is the machine's."""
    kernel(tmp_path, max=1000, tcp_timeout_established=10, tcp_timeout_close_wait=60)
    write = Path.write_text

    def refusing(path: Path, *words: str) -> int:
        if path.name == "nf_conntrack_max":
            raise PermissionError(13, "Permission denied")
        return write(path, *words)

    monkeypatch.setattr(Path, "write_text", refusing)
    [sentence] = raise_limits(AS_KUBE_PROXY, tmp_path, tmp_path / "hashsize")
    assert "nf_conntrack_max stays at 1000" in sentence and "Permission denied" in sentence
    assert value(tmp_path, "tcp_timeout_established") == 86_400

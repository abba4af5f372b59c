"""Programs are verified side by side, on all processors but one while there is other work to do."""

import os
import threading
from contextlib import ExitStack
from typing import Any

import pytest

from ebpf_lb.datapath.loader import loading
from ebpf_lb.datapath.loader.image import ProgramImage
from ebpf_lb.datapath.loader.programs import STACK
from ebpf_lb.model.values import Family

PROCESSORS, WITHIN_S = 3, 30


class Loaded:
    """Stands for a program."""

    def __enter__(self) -> "Loaded":
        return self

    def __exit__(self, *_: object) -> None:
        pass


class Kernel:
    """Verifies when as many have come together as are waited for."""

    def __init__(self, together: int) -> None:
        self._meeting = threading.Barrier(together)
        self._lock = threading.Lock()
        self._running = 0
        self.most = 0

    def load(self, *_: Any) -> Loaded:
        with self._lock:
            self._running += 1
            self.most = max(self.most, self._running)
        self._meeting.wait(WITHIN_S)
        with self._lock:
            self._running -= 1
        return Loaded()


def verify(monkeypatch: pytest.MonkeyPatch, kernel: Kernel, idle: threading.Event | None) -> int:
    """As many programs as make whole meetings of two and of three."""
    monkeypatch.setattr(os, "cpu_count", lambda: PROCESSORS)
    monkeypatch.setattr(loading, "_load", kernel.load)
    image = ProgramImage(b"", {}, {})
    jobs = [loading._Job(STACK, Family.IPV4, f"p{number}", image) for number in range(12)]
    with ExitStack() as opened:
        return len(
            loading._verify(jobs, {(STACK, Family.IPV4): {}}, {Family.IPV4: {}}, {}, opened, idle)
        )


@pytest.mark.parametrize("busy", [True, False])
def test_a_processor_is_left_to_what_else_is_to_be_done(
    monkeypatch: pytest.MonkeyPatch, busy: bool
) -> None:
    kernel = Kernel(PROCESSORS - busy)
    idle = threading.Event()
    if not busy:
        idle.set()
    assert verify(monkeypatch, kernel, idle) == 12
    assert kernel.most == PROCESSORS - busy
    idle.set()


def test_who_says_nothing_has_all_processors(monkeypatch: pytest.MonkeyPatch) -> None:
    kernel = Kernel(PROCESSORS)
    assert verify(monkeypatch, kernel, None) == 12 and kernel.most == PROCESSORS

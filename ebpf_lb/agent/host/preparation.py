"""What a start begins with: the lock, a bpffs, and the programs in the kernel.

The kernel needs two seconds of a processor for the programs, and Python a third of one for the
agent's libraries; neither needs the other, so both are done at once. A processor is left to Python:
while the kernel had all of them, probes waited for a second.
"""

import socket
import threading
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from ebpf_lb.agent.host.bpffs import ensure_bpffs
from ebpf_lb.agent.host.process import be_the_only_one, limit_heaps
from ebpf_lb.datapath.loader import Loaded, ensure_loaded
from ebpf_lb.datapath.settings import Settings
from ebpf_lb.datapath.writer import move_services


@dataclass(frozen=True, slots=True)
class Alone:
    """No other agent works with these maps until the end of `with`. `mounted`: a bpffs had to
    be."""

    lock: socket.socket
    mounted: bool

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.lock.close()


class Preparation:
    """Begins at once, in a thread of its own."""

    def __init__(self, bpffs: Path, settings: Settings, *, anew: bool = False) -> None:
        """As `ensure_loaded` wants it."""
        self._bpffs = bpffs
        self._settings = settings
        self._anew = anew
        self._idle = threading.Event()
        self._alone: Future[Alone] = Future()
        self._done: Future[Loaded] = Future()
        limit_heaps()  # before there are threads
        threading.Thread(target=self._run, name="preparation", daemon=True).start()

    def alone(self) -> Alone:
        """Waits for the lock and a bpffs. UserError: they cannot be had."""
        return self._alone.result()

    def result(self) -> Loaded:
        """Waits for the programs, since there is nothing else to do. UserError: they cannot be
        had."""
        self._idle.set()
        return self._done.result()

    def _run(self) -> None:
        try:
            self._alone.set_result(self._begin())
        except BaseException as error:
            self._alone.set_exception(error)
            self._done.set_exception(error)
            return
        try:
            self._done.set_result(
                ensure_loaded(
                    self._bpffs,
                    self._settings,
                    anew=self._anew,
                    move=move_services,
                    idle=self._idle,
                )
            )
        except BaseException as error:
            self._done.set_exception(error)

    def _begin(self) -> Alone:
        lock = be_the_only_one(self._bpffs)
        try:
            return Alone(lock, ensure_bpffs(self._bpffs))
        except BaseException:
            lock.close()
            raise

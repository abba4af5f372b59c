"""What a start begins with: the lock, a bpffs, and the programs in the kernel.

The kernel needs a second of a processor for the programs, and Python half of one for the agent's
libraries; neither needs the other, so both are done at once.
"""

import socket
import threading
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path

from ebpf_lb.agent.host.bpffs import ensure_bpffs
from ebpf_lb.agent.host.process import be_the_only_one, limit_heaps
from ebpf_lb.datapath.loader import Loaded, ensure_loaded
from ebpf_lb.datapath.settings import Settings
from ebpf_lb.datapath.writer import move_services


@dataclass(frozen=True, slots=True)
class Prepared:
    """`lock`: to be kept. `mounted`: a bpffs had to be."""

    lock: socket.socket
    mounted: bool
    loaded: Loaded


class Preparation:
    """Begins at once, in a thread of its own."""

    def __init__(self, bpffs: Path, settings: Settings, *, anew: bool = False) -> None:
        """As `ensure_loaded` wants it."""
        self._bpffs = bpffs
        self._settings = settings
        self._anew = anew
        self._done: Future[Prepared] = Future()
        limit_heaps()  # before there are threads
        threading.Thread(target=self._run, name="preparation", daemon=True).start()

    def result(self) -> Prepared:
        """Waits for it. UserError: it cannot be had."""
        return self._done.result()

    def _run(self) -> None:
        try:
            self._done.set_result(self._prepare())
        except BaseException as error:
            self._done.set_exception(error)

    def _prepare(self) -> Prepared:
        lock = be_the_only_one(self._bpffs)
        try:
            mounted = ensure_bpffs(self._bpffs)
            loaded = ensure_loaded(self._bpffs, self._settings, anew=self._anew, move=move_services)
        except BaseException:
            lock.close()
            raise
        return Prepared(lock, mounted, loaded)

"""A sign that an agent runs, for those who come later: the time of its folder in bpffs."""

import os
from contextlib import suppress
from pathlib import Path


class Heartbeat:
    """Touches the folder; how old that is tells `ebpf-lb status` since when no agent runs."""

    problem = ""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def check(self) -> None:
        """Call it every second or so."""
        with suppress(OSError):  # where the folder is gone, those who hold its pins say so
            os.utime(self._folder)

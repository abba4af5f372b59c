"""What is pinned in bpffs may be removed by somebody, or go with a mount that is undone.

Programs stay at the interfaces then, and maps with the programs, but a program array loses its
content with its last pin or open descriptor, and with it go all slow paths: no connection would
begin any more. So the agent holds the arrays open, and forwarding goes on. It says that the pins
are gone, since only that is left to it: another agent will find nothing to go on with.
"""

from pathlib import Path
from typing import Any

from ebpf_lb.datapath.libbpf import Map
from ebpf_lb.datapath.loader import program_arrays
from ebpf_lb.datapath.pins import Build


class BuildPins:
    """`build`: the one that runs. `log`: structlog's."""

    def __init__(self, build: Build, log: Any) -> None:
        self._build = build
        self._log = log
        self._held: dict[Path, Map] = {}
        self.problem = ""
        """That pins are gone, and what to do; "" while they are there."""
        self.hold()

    def hold(self) -> None:
        """Opens what is pinned now: once more after programs were added."""
        for path in program_arrays(self._build):
            if path not in self._held:
                self._held[path] = Map.open(path)

    def check(self) -> None:
        """Call it every second or so."""
        gone = not all(path.exists() for path in list(self._held))
        if gone and not self.problem:
            self.problem = (
                f"Somebody removed what is pinned in {self._build.path}: Services are served as "
                "long as this agent runs. Restart it at a quiet time: the next one loads anew, and "
                "established connections end."
            )
            self._log.error("pins are gone", problem=self.problem)
        elif not gone:
            self.problem = ""

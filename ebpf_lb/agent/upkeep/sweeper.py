"""When the tables are swept: a little each second, so that nothing ever waits for it."""

from collections.abc import Sequence
from typing import Any

from ebpf_lb.datapath.sweep import Sweep

# Counts in the metrics are at most so old.
PASS_S = 30


class Sweeper:
    """Call `step` every second: after PASS_S of them, everything was seen once."""

    def __init__(self, sweeps: Sequence[Sweep], log: Any) -> None:
        self._sweeps = sweeps
        self._log = log
        self._failed = False

    def step(self) -> None:
        """Forwarding does not depend on it: what goes wrong is said once, and tried again."""
        try:
            for sweep in self._sweeps:
                sweep.step(1 / PASS_S)
        except OSError as error:
            if not self._failed:
                self._log.error("sweeping failed", error=str(error))
            self._failed = True
        else:
            self._failed = False

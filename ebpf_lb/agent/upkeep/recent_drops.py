"""What was dropped and refused in the last minute, for whoever asks how this node is."""

from collections import deque
from collections.abc import Callable
from typing import Any

from ebpf_lb.datapath.reader.drops import Endings, since

SPAN_S = 60.0
EVERY_S = 5.0


class RecentDrops:
    """`count`: packets so far, by reason and Service. `clock`: monotonic seconds."""

    problem = ""

    def __init__(self, count: Callable[[], Endings], clock: Callable[[], float]) -> None:
        self._count = count
        self._clock = clock
        self._samples: deque[tuple[float, Endings]] = deque()

    def check(self) -> None:
        """Call it every second or so."""
        now = self._clock()
        if self._samples and now - self._samples[-1][0] < EVERY_S:
            return
        self._samples.append((now, self._count()))
        # one that is older than asked for stays: what came since is a little more than a minute's
        while len(self._samples) > 1 and now - self._samples[1][0] >= SPAN_S:
            self._samples.popleft()

    def status(self) -> dict[str, Any]:
        """Those of the last minute, or of the time since the agent's start. Another thread may
        ask."""
        samples = list(self._samples)
        if not samples:
            return {"dropsLastMinute": []}
        rows = [
            {
                "family": ending.family,
                "reason": ending.reason.name,
                "verdict": ending.reason.verdict.value,
                "service": ending.service or None,
                "protocol": ending.protocol or None,
                "packets": packets,
            }
            for ending, packets in since(samples[0][1], self._count()).items()
        ]
        return {"dropsLastMinute": sorted(rows, key=lambda row: -int(str(row["packets"])))}

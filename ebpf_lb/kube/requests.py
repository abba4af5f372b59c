"""Account of requests to the API server: how many, how long, how large; client-go's buckets."""

import threading
from bisect import bisect_left
from collections import Counter
from collections.abc import Iterator

_DURATIONS_S = (0.005, 0.025, 0.1, 0.25, 0.5, 1.0, 2.0, 4.0, 8.0, 15.0, 30.0, 60.0)
_SIZES_BYTES = (64.0, 256.0, 512.0, *(float(4**exponent) for exponent in range(5, 13)))
NO_ANSWER = "<error>"


class Distribution:
    """Values, counted up to bounds."""

    def __init__(self, bounds: tuple[float, ...]) -> None:
        self._bounds = bounds
        self._counts = [0] * (len(bounds) + 1)
        self.total = 0.0

    def add(self, value: float) -> None:
        self._counts[bisect_left(self._bounds, value)] += 1
        self.total += value

    def cumulative(self) -> Iterator[tuple[str, int]]:
        """Bound and how many are no greater, the last bound `+Inf`."""
        count = 0
        for bound, here in zip((*map(str, self._bounds), "+Inf"), self._counts, strict=True):
            count += here
            yield bound, count


class Requests:
    """Threads may share it. By verb and host, and the counts by code, method and host."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.counts: Counter[tuple[str, str, str]] = Counter()
        self.durations_s: dict[tuple[str, str], Distribution] = {}
        self.sent_bytes: dict[tuple[str, str], Distribution] = {}
        self.received_bytes: dict[tuple[str, str], Distribution] = {}

    def made(self, method: str, host: str, code: str, seconds: float, sent: int) -> None:
        """`code`: the status, or NO_ANSWER."""
        with self._lock:
            self.counts[code, method, host] += 1
            _at(self.durations_s, method, host, _DURATIONS_S).add(seconds)
            _at(self.sent_bytes, method, host, _SIZES_BYTES).add(sent)

    def received(self, method: str, host: str, size: int) -> None:
        with self._lock:
            _at(self.received_bytes, method, host, _SIZES_BYTES).add(size)


def _at(
    known: dict[tuple[str, str], Distribution], verb: str, host: str, bounds: tuple[float, ...]
) -> Distribution:
    found = known.get((verb, host))
    if found is None:
        found = known[verb, host] = Distribution(bounds)
    return found

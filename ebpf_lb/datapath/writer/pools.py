"""Who gets which id, and which stretch of `slots`. Pure bookkeeping, no map is touched."""

from array import array
from bisect import bisect_left, insort
from collections.abc import Iterable


class Exhausted(Exception):
    """Nothing is left. `what` says it in half a sentence."""

    def __init__(self, what: str) -> None:
        super().__init__(what)
        self.what = what


def full(name: str, entries: int) -> str:
    """Why something does not fit into a map, for people: its capacity is a key of the same name."""
    head, *rest = name.split("_")
    key = head + "".join(word.capitalize() for word in rest)
    return f"the map {name} is full ({entries} entries): raise dataPath.{key} in the configuration"


class Ids:
    """Numbers from 1 to `limit - 1`; 0 means none and is never given out."""

    def __init__(self, limit: int, what: str) -> None:
        self._limit = limit
        self._next = 1
        self._returned = array("I")
        self._what = what

    @property
    def free(self) -> int:
        return self._limit - self._next + len(self._returned)

    @property
    def used(self) -> int:
        return self._next - 1 - len(self._returned)

    def take(self, count: int) -> list[int]:
        """As many ids; Exhausted, and none is taken, if there are fewer."""
        if count > self.free:
            raise Exhausted(self._what)
        again = min(count, len(self._returned))
        taken = [self._returned.pop() for _ in range(again)]
        taken.extend(range(self._next, self._next + count - again))
        self._next += count - again
        return taken

    def give_back(self, ids: Iterable[int]) -> None:
        self._returned.extend(ids)

    def adopt(self, used: Iterable[int]) -> None:
        """Starts from ids that are in use, at most once each."""
        last = 0
        self._returned = array("I")
        for number in sorted(used):
            self._returned.extend(range(last + 1, number))
            last = number
        self._next = last + 1
        self._returned.reverse()  # lowest first, which keeps arrays dense


class Regions:
    """Contiguous stretches of 0 … `size - 1`: the smallest hole that fits, neighbours merged.

    Holes are kept by size, so that neither many Services nor many holes make it slow.
    """

    def __init__(self, size: int, what: str) -> None:
        self._what = what
        self.used = size
        """How much is given out."""
        self._size_at: dict[int, int] = {}  # a hole's start -> its size
        self._start_before: dict[int, int] = {}  # a hole's end -> its start
        self._starts: dict[int, dict[int, None]] = {}  # size -> starts of holes of that size
        self._sizes: list[int] = []  # sizes that there are, sorted
        self._add(0, size)

    def take(self, size: int) -> int:
        """The start of a stretch of `size`; Exhausted if no hole is large enough."""
        position = bisect_left(self._sizes, size)
        if position == len(self._sizes):
            raise Exhausted(self._what)
        hole = self._sizes[position]
        start, _ = self._starts[hole].popitem()  # unlike looking at the last, never slow
        self._starts[hole][start] = None
        self._remove(start, hole)
        self._add(start + size, hole - size)
        return start

    def give_back(self, start: int, size: int) -> None:
        end = start + size
        if end in self._size_at:
            following = self._size_at[end]
            self._remove(end, following)
            end += following
        if start in self._start_before:
            first = self._start_before[start]
            self._remove(first, start - first)
            start = first
        self._add(start, end - start)

    def adopt(self, used: Iterable[tuple[int, int]], size: int) -> None:
        """Starts anew with some (start, size) in use; ValueError if they overlap or stick out."""
        self.__init__(0, self._what)  # type: ignore[misc]
        self.used = size
        end = 0
        for start, length in sorted(used):
            if start < end or start + length > size:
                raise ValueError(f"the region {start}+{length} overlaps or sticks out")
            self._add(end, start - end)
            end = start + length
        self._add(end, size - end)

    @property
    def holes(self) -> list[tuple[int, int]]:
        """(start, size) of each hole, by start."""
        return sorted(self._size_at.items())

    def _add(self, start: int, size: int) -> None:
        if not size:
            return
        self.used -= size
        self._size_at[start] = size
        self._start_before[start + size] = start
        starts = self._starts.get(size)
        if starts is None:
            starts = self._starts[size] = {}
            insort(self._sizes, size)
        starts[start] = None

    def _remove(self, start: int, size: int) -> None:
        self.used += size
        del self._size_at[start]
        del self._start_before[start + size]
        starts = self._starts[size]
        del starts[start]
        if not starts:
            del self._starts[size]
            del self._sizes[bisect_left(self._sizes, size)]

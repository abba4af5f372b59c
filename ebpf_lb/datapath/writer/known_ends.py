"""The map `known_ends`: one bit for each address and port of a frontend or a backend.

A bit is set before the frontend or the backend that it stands for is written, whoever writes it: so
programs never meet one whose bit is not set. Bits are never cleared; a stale one costs a look-up.
"""

from collections.abc import Iterable

from ebpf_lb.datapath.writer.hashes import end_bits
from ebpf_lb.datapath.writer.kernel_map import KernelMap, MappedWords

_CHUNK = 4096  # elements for each read


class KnownEnds:
    """The map, as the writer uses it."""

    def __init__(self, words: MappedWords) -> None:
        self._words = words

    def note(self, ends: Iterable[bytes]) -> None:
        """From now on programs look these up. ends: as of `end_bits`."""
        wanted: dict[int, int] = {}
        for bit in end_bits(ends, self._words.count):
            wanted[bit >> 6] = wanted.get(bit >> 6, 0) | 1 << (bit & 63)
        for index, bits in wanted.items():
            held = self._words.load(index)
            if bits & ~held:
                self._words.store(index, 0, held | bits)


class NotedTable:
    """A map in whose keys (or values) ends stand first. What is written to it is noted before.

    table: the map itself. size: bytes of each element that ends stand in, `end_size` of
    them the end.
    """

    def __init__(
        self, table: KernelMap, known: KnownEnds, *, in_keys: bool, size: int, end_size: int
    ) -> None:
        self.name = table.name
        self.max_entries = table.max_entries
        self.lookup = table.lookup
        self.delete = table.delete
        self.items = table.items
        self.slice = table.slice
        self._table = table
        self._known = known
        self._in_keys = in_keys
        self._size = size
        self._end_size = end_size

    def update(self, key: bytes, value: bytes) -> None:
        self._note(key if self._in_keys else value)
        self._table.update(key, value)

    def update_batch(self, keys: bytes, values: bytes) -> None:
        self._note(keys if self._in_keys else values)
        self._table.update_batch(keys, values)

    def note_all(self) -> None:
        """What the map holds already: it may be older than `known_ends`."""
        if self._in_keys:
            self._note(b"".join([key for key, _ in self._table.items()]))
            return
        nothing = bytes(self._size * _CHUNK)
        for first in range(0, self.max_entries, _CHUNK):
            chunk = self._table.slice(first, min(_CHUNK, self.max_entries - first))
            if chunk != nothing[: len(chunk)]:
                self._note(chunk)

    def _note(self, elements: bytes) -> None:
        size, end = self._size, self._end_size
        ends = (elements[at : at + end] for at in range(0, len(elements), size))
        self._known.note({one for one in ends if any(one)})

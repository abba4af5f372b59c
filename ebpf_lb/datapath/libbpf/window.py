"""An array map's memory in our own address space: whole aligned words, read and stored in place.

A mapping counts as resident memory at once, so large maps are looked at through windows.
"""

import mmap
from typing import Self

_PAGE = mmap.PAGESIZE


class MappedArray:
    """Elements `first` … `first + count - 1` of a mappable array map.

    `words` are all its 64-bit words from element `first` on, `stride // 8` an element; reading or
    assigning one is a single load or store. `data` are the same bytes.
    """

    def __init__(
        self, fd: int, name: str, stride: int, first: int, count: int, *, writable: bool
    ) -> None:
        """`fd` is the map's, opened for what is asked; OSError. Use `Map.mapped`."""
        self.first = first
        self.count = count
        self.stride = stride
        start = first * stride
        before = start % _PAGE
        length = -(-(before + count * stride) // _PAGE) * _PAGE
        protection = mmap.PROT_READ | (mmap.PROT_WRITE if writable else 0)
        try:
            self._mmap = mmap.mmap(fd, length, mmap.MAP_SHARED, protection, offset=start - before)
        except OSError as error:
            raise OSError(error.errno, f"map {name}: mapping it: {error.strerror}") from error
        self._views = [memoryview(self._mmap)]
        self.data = self._view(self._views[0][before : before + count * stride])
        self.words = self._view(self.data.cast("Q"))

    def _view(self, view: memoryview) -> memoryview:
        self._views.append(view)
        return view

    def load(self, index: int, offset: int = 0) -> int:
        """The 64-bit word at `offset` (a multiple of 8) of element `index` of the map."""
        return self.words[((index - self.first) * self.stride + offset) // 8]

    def store(self, index: int, offset: int, value: int) -> None:
        """Stores that word in one piece: programs see the old or the new one."""
        self.words[((index - self.first) * self.stride + offset) // 8] = value

    def element(self, index: int, size: int) -> bytes:
        """A copy of an element's first `size` bytes."""
        start = (index - self.first) * self.stride
        return bytes(self.data[start : start + size])

    def used(self) -> list[int]:
        """The elements that are not all zero."""
        data, stride = bytes(self.data), self.stride
        nothing = bytes(stride)
        return [
            self.first + index
            for index in range(self.count)
            if data[index * stride : (index + 1) * stride] != nothing
        ]

    def close(self) -> None:
        for view in reversed(self._views):
            view.release()
        self._mmap.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

"""Reading a ring buffer map."""

import ctypes
from collections.abc import Callable
from ctypes import c_int, c_size_t, c_void_p
from typing import Self

from ebpf_lb.datapath.libbpf.maps import Map
from ebpf_lb.datapath.libbpf.object import checked, library

_SAMPLE = ctypes.CFUNCTYPE(c_int, c_void_p, c_void_p, c_size_t)


class RingBuffer:
    """Hands each record of a ring buffer to `receive`, which must not raise."""

    def __init__(self, ring: Map, receive: Callable[[bytes], None]) -> None:
        def sample(_context: int, data: int, size: int) -> int:
            receive(ctypes.string_at(data, size))
            return 0

        self._sample = _SAMPLE(sample)  # libbpf keeps only the address
        self._name = ring.name
        self._ring = library().ring_buffer__new(ring.fd, self._sample, None, None)
        if not self._ring:
            raise OSError(ctypes.get_errno(), f"map {ring.name}: cannot be read as a ring buffer")

    def poll(self, timeout_s: float) -> int:
        """Waits for records at most so long; how many were received."""
        result = library().ring_buffer__poll(self._ring, int(timeout_s * 1000))
        return checked(result, f"map {self._name}: waiting for records")

    def consume(self) -> int:
        """Receives what is there without waiting."""
        return checked(
            library().ring_buffer__consume(self._ring), f"map {self._name}: reading records"
        )

    def close(self) -> None:
        if self._ring:
            library().ring_buffer__free(self._ring)
            self._ring = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

"""The filters' hashes, as bpf/ground/hash.h computes them: hash_filter and hash_end."""

import struct
from collections.abc import Iterable, Iterator
from functools import cache
from typing import NamedTuple

from ebpf_lb.datapath import layout
from ebpf_lb.model.values import Family


class _Factors(NamedTuple):
    word: int
    port: int


@cache
def _factors() -> _Factors:
    defines = layout.load(Family.IPV4).defines  # the same for both families
    return _Factors(defines["HASH_WORD_FACTOR"], defines["HASH_PORT_FACTOR"])


def filter_bit(address: bytes, words: int) -> tuple[int, int]:
    """An address in `vip_filter`: the word's index, and the bit's number in it. words: how many the
    map has, a power of two."""
    factor, hashed = _factors().word, 0
    # the C side loads the address, which is in network order, as little-endian words
    for (word,) in struct.iter_unpack("<I", address):
        hashed = ((hashed ^ word) * factor) & 0xFFFFFFFF
        hashed ^= hashed >> 15
    index = hashed & (words * 64 - 1)
    return index >> 6, index & 63


def end_bits(ends: Iterable[bytes], words: int) -> Iterator[int]:
    """Addresses with ports in `known_ends`: each one's bit, counted from the map's first. ends: the
    address, then the port, as in a packet. words: how many the map has, a power of two."""
    word_factor, port_factor = _factors()
    mask = words * 64 - 1
    formats: dict[int, struct.Struct] = {}
    for end in ends:
        unpack = formats.get(len(end))
        if unpack is None:
            unpack = formats[len(end)] = struct.Struct(f"<{len(end) // 4}IH")
        *address, port = unpack.unpack(end)
        hashed = port * port_factor & 0xFFFFFFFF
        for word in address:
            hashed = (hashed ^ word) * word_factor & 0xFFFFFFFF
            hashed ^= hashed >> 15
        yield hashed & mask

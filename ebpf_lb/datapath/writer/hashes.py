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
    last: int


@cache
def _factors() -> _Factors:
    defines = layout.load(Family.IPV4).defines  # the same for both families
    return _Factors(*(defines[f"HASH_{name.upper()}_FACTOR"] for name in _Factors._fields))


def _shift(words: int) -> int:
    """Past it stand as many bits of 32 as number the bits of a map of so many words."""
    return 33 - (words * 64).bit_length()


def filter_bit(address: bytes, words: int) -> tuple[int, int]:
    """An address in `vip_filter`: the word's index, and the bit's number in it. words: how many the
    map has, a power of two."""
    (factor, _, last), hashed = _factors(), 0
    # the C side loads the address, which is in network order, as little-endian words
    for (word,) in struct.iter_unpack("<I", address):
        hashed = ((hashed ^ word) * factor) & 0xFFFFFFFF
        hashed ^= hashed >> 15
    index = (hashed * last & 0xFFFFFFFF) >> _shift(words)
    return index >> 6, index & 63


def end_bits(ends: Iterable[bytes], words: int) -> Iterator[int]:
    """Addresses with ports in `known_ends`: each one's bit, counted from the map's first. ends: the
    address, then the port, as in a packet. words: how many the map has, a power of two."""
    word_factor, port_factor, last_factor = _factors()
    shift = _shift(words)
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
        yield (hashed * last_factor & 0xFFFFFFFF) >> shift

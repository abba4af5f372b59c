"""Which addresses are anything to us: the map vip_filter, and its hash, as in bpf/ground/hash.h."""

import struct
from collections import Counter

from ebpf_lb.datapath.writer.family_maps import Words


def filter_bit(address: bytes, words: int) -> tuple[int, int]:
    """The word's index and the bit's number in it; `words` is a power of two."""
    hashed = 0
    # the C side loads the address, which is in network order, as little-endian words
    for (word,) in struct.iter_unpack("<I", address):
        hashed = ((hashed ^ word) * 0x9E3779B1) & 0xFFFFFFFF
        hashed ^= hashed >> 15
    index = hashed & (words * 64 - 1)
    return index >> 6, index & 63


class VipFilter:
    """Bits are set and never cleared: several addresses share one."""

    def __init__(self, words: Words, stats: Counter[str]) -> None:
        self._words = words
        self._stats = stats

    def add(self, address: bytes) -> bool:
        """False if its bit was there: then the address may have an entry somewhere, else not."""
        index, bit = filter_bit(address, self._words.count)
        word = self._words.load(index)
        if word >> bit & 1:
            return False
        self._words.store(index, 0, word | 1 << bit)
        self._stats["vip_filter"] += 1
        return True

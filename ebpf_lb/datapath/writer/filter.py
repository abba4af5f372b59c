"""Which bit of `vip_filter` stands for an address: hash_filter of bpf/ground/hash.h, in Python."""

import struct


def filter_bit(address: bytes, words: int) -> tuple[int, int]:
    """The word's index and the bit's number in it; `words` is a power of two."""
    hashed = 0
    # the C side loads the address, which is in network order, as little-endian words
    for (word,) in struct.iter_unpack("<I", address):
        hashed = ((hashed ^ word) * 0x9E3779B1) & 0xFFFFFFFF
        hashed ^= hashed >> 15
    index = hashed & (words * 64 - 1)
    return index >> 6, index & 63

"""A region of `slots` as one word of `services`, which changes by one store."""


def region_word(base: int, size: int) -> int:
    return size << 32 | base if size else 0


def region_of(word: int) -> tuple[int, int]:
    """(base, size)."""
    return word & 0xFFFFFFFF, word >> 32

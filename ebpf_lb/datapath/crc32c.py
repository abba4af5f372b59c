"""CRC32c (RFC 9260 appendix A) over zeros, as a linear map: what makes SCTP port changes cheap.

A CRC without initial value and final inversion is linear, so what 2^k zero bytes do to its
register is a matrix over GF(2): column b is what becomes of a register with only bit b set.
"""

import functools
from collections.abc import Sequence

POLYNOMIAL = 0x82F63B78  # reflected


@functools.cache
def shift_columns(exponent: int) -> tuple[int, ...]:
    """The 32 columns for 2**exponent zero bytes."""
    columns = []
    for bit in range(32):
        register = 1 << bit
        for _ in range(8):
            register = (register >> 1) ^ (POLYNOMIAL if register & 1 else 0)
        columns.append(register)
    for _ in range(exponent):  # twice as many bytes: the matrix applied to its own columns
        columns = [apply(columns, column) for column in columns]
    return tuple(columns)


def apply(columns: Sequence[int], register: int) -> int:
    """The register after the zero bytes that `columns` stand for."""
    result = 0
    for bit, column in enumerate(columns):
        if register >> bit & 1:
            result ^= column
    return result

"""The data path's clock: ticks of about half a second, out of the kernel's jiffies.

A flow keeps some bits of its last packet's tick, and times are compared by difference; so half of
what they span must exceed the longest time-out that can be configured. Once in a tick a flow looks
at what may have changed: half a second is how late it notices.
"""

import functools
import time

from ebpf_lb.datapath.layout import load
from ebpf_lb.datapath.libbpf import Program
from ebpf_lb.model.values import Family

LONGEST_TIMEOUT_S = 7 * 86_400
_LONGEST_TICK_S = 0.55

_CLOCK_MONOTONIC_COARSE = 6
_SHORTEST_PACKET = bytes(64)


def jiffies_per_second() -> int:
    """The kernel's HZ, which its coarse clock's resolution tells."""
    return round(1 / time.clock_getres(_CLOCK_MONOTONIC_COARSE))


@functools.cache
def time_bits() -> int:
    """So many bits of a tick are kept in a flow's word."""
    return load(Family.IPV4).defines["FLOW_TIME_MASK"].bit_length()


@functools.cache
def tick_shift() -> int:
    """A tick is jiffies >> this: the longest that is about half a second."""
    shift = 0
    while 2 << shift <= jiffies_per_second() * _LONGEST_TICK_S:
        shift += 1
    return shift


def ticks_per_second() -> float:
    return jiffies_per_second() / (1 << tick_shift())


def now(clock: Program) -> int:
    """The tick that it is, 32 bits of it; `clock` is the program of that name."""
    return clock.test_run(_SHORTEST_PACKET).retval

"""Maglev's consistent hashing: Eisenbud et al., "Maglev: A Fast and Reliable Software Network Load
Balancer", NSDI 2016, section 3.4.

Every backend has its own order of preference of all slots of a table, by its address and port. They
take turns, each takes the first slot of its order that is still free. So all get alike many slots,
and when a backend leaves, nearly only its own slots change hands.

A table is a function of its backends, their weights and its size alone: every node computes the
same. The size, too, must follow from what every node knows, and from nothing that only this one
remembers. Hysteresis would be such a memory: a node that starts while the number of backends is
between two thresholds would choose otherwise than the others. What keeps a Service from going to
and fro between two sizes, which moves most of its flows, is instead that sizes are far apart and
their limits beside the usual numbers of replicas, and that endpoints count as long as they exist,
ready or not.
"""

import hashlib
import struct
from array import array
from collections.abc import Sequence
from functools import reduce
from itertools import compress, count, cycle, islice
from math import gcd, isqrt

SLOTS_PER_BACKEND = 100
"""So many at least, as long as there is a size for it: shares then differ by 1 % at most."""

# Primes, as orders of preference need them. Each is four times the one before: the limits are 4,
# 16, 64, 256, 1,024 and 4,096 backends, so that Deployments of 10, 20, 50, 100 or 200 replicas stay
# on one side of them while a rolling update adds a quarter. Beyond the last one shares grow uneven
# (2.5 % at 10,000 backends); a larger table would not fit into the map `slots` as it is by default.
SIZES = (401, 1601, 6421, 25601, 102407, 409609)

_PREFERENCE = struct.Struct("<QQ")


def size_for(shares: int) -> int:
    """How many slots a table gets. `shares`: the number of backends, or the sum of their weights
    in units of the least one."""
    wanted = SLOTS_PER_BACKEND * shares
    return next((size for size in SIZES if size >= wanted), SIZES[-1])


def table(backends: Sequence[bytes], weights: Sequence[int], size: int) -> "array[int]":
    """For each slot the position in `backends` of the one that has it.

    backends: what tells them apart (address and port), in an order that is the same on every node.
    weights: one each, all positive; () if they are equal. size: a prime.
    """
    starts, steps = _preferences(backends, size)
    owners = array("I", bytes(4 * size))
    free = bytearray(b"\1") * size
    # trying costs size / left attempts a turn, and looking at what is left costs `left`
    tail = isqrt(size)
    every = cycle(turns(len(backends), weights))
    positions = list(starts)
    for turn in islice(every, size - tail):
        at, step = positions[turn], steps[turn]
        while not free[at]:
            at += step
            if at >= size:
                at -= size
        free[at] = 0
        owners[at] = turn
        positions[turn] = at
    left = list(compress(count(), free))
    inverses: dict[int, int] = {}
    for turn in islice(every, tail):
        inverse = inverses.get(turn)
        if inverse is None:
            inverse = inverses[turn] = pow(steps[turn], -1, size)
        start = starts[turn]
        ranks = [(slot - start) * inverse % size for slot in left]
        owners[left.pop(ranks.index(min(ranks)))] = turn
    return owners


def _preferences(backends: Sequence[bytes], size: int) -> tuple[list[int], list[int]]:
    """Where each backend's order of slots begins, and how it goes on."""
    starts, steps = [], []
    for backend in backends:
        digest = hashlib.blake2b(backend, digest_size=_PREFERENCE.size).digest()
        start, step = _PREFERENCE.unpack(digest)
        starts.append(start % size)
        steps.append(step % (size - 1) + 1)
    return starts, steps


def turns(backends: int, weights: Sequence[int]) -> Sequence[int]:
    """Who comes when, until it begins anew: as often as its weight says, evenly distributed."""
    if not weights:
        return range(backends)
    unit = reduce(gcd, weights)
    most = max(weights)
    credit = [0] * backends
    order = []
    for _ in range(most // unit):
        for backend, weight in enumerate(weights):
            credit[backend] += weight
            if credit[backend] >= most:
                credit[backend] -= most
                order.append(backend)
    return order

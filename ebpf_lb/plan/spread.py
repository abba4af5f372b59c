"""How a Service port's connections are spread over its backends, and by which tables, if by any."""

from collections.abc import Collection, Iterable
from functools import reduce
from math import gcd
from typing import NamedTuple

from ebpf_lb.model.service import Algorithm, Service
from ebpf_lb.plan.forwarding import Backend, Spread, Table
from ebpf_lb.plan.maglev import size_for
from ebpf_lb.plan.usable import Place, Usable, on_node


class Tables(NamedTuple):
    cluster: Table | None = None
    local: Table | None = None


NO_TABLES = Tables()

_SPREAD = {
    Algorithm.RANDOM: Spread.IN_TURN,
    Algorithm.ROUND_ROBIN: Spread.IN_TURN,
    Algorithm.LEAST_CONNECTIONS: Spread.ONE_EACH,
    Algorithm.SOURCE_HASH: Spread.MAGLEV,
    Algorithm.MAGLEV: Spread.MAGLEV,
}


def algorithm_of(service: Service, default: Algorithm) -> Algorithm:
    """Weights alone ask for Maglev, where nobody has chosen anything."""
    if service.algorithm is not None:
        return service.algorithm
    if service.weights and default is Algorithm.RANDOM:
        return Algorithm.MAGLEV
    return default


def needs_tables(service: Service, algorithm: Algorithm) -> bool:
    return bool(service.weights) or _SPREAD[algorithm] is Spread.MAGLEV


def tables(
    service: Service,
    algorithm: Algorithm,
    places: Collection[Place],
    found: Usable,
    node: str,
) -> Tables:
    """For both sets of a Service port. `places`: all its endpoints, usable or not: what comes and
    goes with a probe must not change the size of Maglev's."""
    weights = dict(service.weights)
    of_place = {
        (place.address, place.port): weights.get(place.address, weights.get(place.endpoint.node, 1))
        for place in places
    }
    here = {(place.address, place.port) for place in on_node(places, node)}
    spread = _SPREAD[algorithm]
    return Tables(
        _table(spread, found.cluster, of_place, of_place.values()),
        _table(spread, found.local, of_place, [of_place[at] for at in here]),
    )


def _table(
    spread: Spread,
    backends: tuple[Backend, ...],
    weights: dict[tuple[bytes, int], int],
    of_all: Iterable[int],
) -> Table | None:
    """One backend alone needs none: every table leads to it."""
    if len(backends) < 2:
        return None
    own = tuple([weights[backend.address, backend.port] for backend in backends])
    equal = len({*own}) == 1
    if spread is Spread.MAGLEV:
        every = [*of_all]
        size = size_for(-(-sum(every) // min(every)))
        return Table(size, () if equal else own)
    if equal:
        return None
    size = len(own) if spread is Spread.ONE_EACH else sum(own) // reduce(gcd, own)
    return Table(size, own, spread)

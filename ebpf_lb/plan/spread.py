"""By which tables a Service port's connections are spread over its backends, if by any."""

from collections.abc import Collection, Iterable
from typing import NamedTuple

from ebpf_lb.model.service import Algorithm, Service
from ebpf_lb.plan.forwarding import Backend, Table
from ebpf_lb.plan.maglev import size_for
from ebpf_lb.plan.usable import Place, Usable, on_node


class Tables(NamedTuple):
    cluster: Table | None = None
    local: Table | None = None


NO_TABLES = Tables()


def by_table(service: Service, default: Algorithm) -> bool:
    return (service.algorithm or default) is Algorithm.MAGLEV


def tables(service: Service, places: Collection[Place], found: Usable, node: str) -> Tables:
    """For both sets of a Service port. `places`: all its endpoints, usable or not: what comes and
    goes with a probe must not change a table's size."""
    weights = dict(service.weights)
    of_place = {
        (place.address, place.port): weights.get(place.address, weights.get(place.endpoint.node, 1))
        for place in places
    }
    here = {(place.address, place.port) for place in on_node(places, node)}
    return Tables(
        _table(found.cluster, of_place, of_place.values()),
        _table(found.local, of_place, [of_place[at] for at in here]),
    )


def _table(
    backends: tuple[Backend, ...],
    weights: dict[tuple[bytes, int], int],
    of_all: Iterable[int],
) -> Table | None:
    """One backend alone needs none: every table leads to it."""
    if len(backends) < 2:
        return None
    own = tuple([weights[backend.address, backend.port] for backend in backends])
    every = [*of_all]
    size = size_for(-(-sum(every) // min(every)))
    return Table(size, own if len({*own}) > 1 else ())

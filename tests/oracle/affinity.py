"""Session affinity, docs/semantics.md, in the oracle's terms: who must a client reach next?"""

from collections.abc import Iterable
from typing import NamedTuple

from tests.oracle.oracle import (
    Backend,
    Client,
    Destination,
    Json,
    Kind,
    Node,
    Verdict,
    cluster_set,
    endpoints_of,
    find,
    sort,
    version,
)


class Sticky(NamedTuple):
    """A Service port with affinity, and where policy Cluster may send its clients."""

    namespace: str
    name: str
    port: str
    family: int
    everywhere: frozenset[Backend]


def sticky(cluster_objects: Iterable[Json], node: Node, destination: Destination) -> Sticky | None:
    """Whose clients are kept, if the destination's are: whatever VIP or nodePort was used."""
    services, slices = sort(cluster_objects)
    match = find(services, node, destination)
    if match is None or match[1]["spec"].get("sessionAffinity") != "ClientIP":
        return None
    _, service, port = match
    family = version(destination.address)
    usable = cluster_set(endpoints_of(service, port, slices, node, family), node)
    metadata = service["metadata"]
    return Sticky(
        metadata["namespace"],
        metadata["name"],
        port.get("name", ""),
        family,
        frozenset(e.backend for e in usable),
    )


class Memory:
    """What clients that were never seen before have come to keep to, in a cluster that stands."""

    def __init__(self) -> None:
        self._last: dict[tuple[Sticky, str], Backend] = {}

    def allowed(self, whose: Sticky, client: Client, verdict: Verdict) -> frozenset[Backend]:
        """Where the client's next connection may go."""
        last = self._last.get((whose, client.address))
        return frozenset({last}) if last in verdict.backends and last else verdict.backends

    def note(self, whose: Sticky, client: Client, verdict: Verdict, chosen: Backend) -> None:
        """A connection was made. A miss under a local policy does not overwrite a choice that is
        valid for the cluster."""
        assert verdict.kind is Kind.BACKENDS
        last = self._last.get((whose, client.address))
        if last in verdict.backends or last not in whose.everywhere:
            self._last[whose, client.address] = chosen

"""A Service port as a whole: what stands in several maps, put together for people."""

from collections import defaultdict
from dataclasses import dataclass, field

from ebpf_lb.datapath.reader import counters, flows, services
from ebpf_lb.datapath.reader.view import View
from ebpf_lb.model.values import Family

UNANSWERED = frozenset({"NEW"})
"""States of a connection whose backend has not answered yet."""

REFUSED = frozenset({"ABORTED"})
"""States of a connection that an end gave up before both had shown that they talk."""


@dataclass(frozen=True, slots=True)
class BackendSummary:
    """`connections`: live ones, by state. `ended`: what became of the others."""

    backend: services.Backend
    connections: dict[str, int]
    ended: counters.Outcome = counters.NO_OUTCOME

    @property
    def live(self) -> counters.Outcome:
        """The live ones, by what has become of them so far."""
        states = self.connections.items()
        unanswered = sum(number for state, number in states if state in UNANSWERED)
        refused = sum(number for state, number in states if state in REFUSED)
        answered = sum(self.connections.values()) - unanswered - refused
        return counters.Outcome(answered, refused, unanswered)

    @property
    def tried(self) -> int:
        """All connections that were sent there."""
        return sum(self.live) + sum(self.ended)

    @property
    def answered(self) -> int:
        """Of these, those that the backend has answered; refused, unanswered: likewise."""
        return self.live.answered + self.ended.answered

    @property
    def refused(self) -> int:
        return self.live.refused + self.ended.refused

    @property
    def unanswered(self) -> int:
        return self.live.unanswered + self.ended.unanswered


@dataclass(frozen=True, slots=True)
class ServiceSummary:
    """`counted` is None as long as nothing was."""

    family: Family
    port: services.ServicePort
    frontends: list[services.Frontend]
    backends: list[BackendSummary]
    source_ranges: list[services.SourceRange]
    counted: counters.ServiceCount | None
    drops: list[counters.ServiceDrops] = field(default_factory=list)


def summaries(view: View) -> list[ServiceSummary]:
    """Of a family's Service ports, by name and protocol."""
    frontends = defaultdict(list)
    for frontend in services.frontends(view):
        frontends[frontend.service_id].append(frontend)
    ranges = defaultdict(list)
    for one in services.source_ranges(view):
        ranges[one.service_id].append(one)
    drops = defaultdict(list)
    for drop in counters.service_drops(view):
        drops[drop.service_id].append(drop)
    counted = {count.service_id: count for count in counters.service_counts(view)}
    backends = defaultdict(list)
    for backend in backend_summaries(view):
        backends[backend.backend.service_id].append(backend)
    return [
        ServiceSummary(
            view.family,
            port,
            frontends[port.id],
            backends[port.id],
            ranges[port.id],
            counted.get(port.id),
            drops[port.id],
        )
        for port in services.service_ports(view)
    ]


def backend_summaries(view: View) -> list[BackendSummary]:
    """By Service, address and port. A backend that has left has no number any more: its
    connections are flows that lead nowhere else, see `ebpf-lb flows`."""
    live: dict[tuple[int, bytes, int], dict[str, int]] = defaultdict(dict)
    for one in flows.tally(view):
        place = (one.service_id, one.backend, one.backend_port)
        live[place][one.state] = one.connections
    ended = counters.outcomes(view)
    found = []
    for backend in services.backends(view):
        place = (backend.service_id, backend.address, backend.port)
        *whose, outcome = ended.get(backend.id, (*place, counters.NO_OUTCOME))
        counted = outcome if tuple(whose) == place else counters.NO_OUTCOME
        found.append(BackendSummary(backend, live.get(place, {}), counted))
    return sorted(
        found,
        key=lambda one: (one.backend.service or "", one.backend.address, one.backend.port),
    )

"""What the reference knows: how all is set up, and the flows so far."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field, replace
from typing import Self

from tests.datapath import judge
from tests.datapath.judge import SHOT, End, Reading
from tests.datapath.reference.flows import Datagram, Flow, datagram_of
from tests.datapath.reference.hooks import (
    FROM_NODE,
    INGRESS,
    POD_IN,
    UPLINK_IN,
    Observed,
    Ruling,
)
from tests.datapath.reference.surroundings import Node, Service, within
from tests.support.packets import SCTP, TCP, UDP


@dataclass
class Known:
    """`drops`: all reasons to drop a packet. `replies`: the flows that look alike from behind."""

    node: Node
    services: dict[tuple[bytes, int, int], Service]
    drops: frozenset[str]
    flows: dict[tuple[int, End, End], Flow] = field(default_factory=dict)
    replies: dict[tuple[int, End, End], list[Flow]] = field(
        default_factory=lambda: defaultdict(list)
    )
    fragments: dict[tuple[bytes, bytes, bytes, int], Datagram] = field(default_factory=dict)
    unseen: dict[tuple[int, End, End], str] = field(default_factory=dict)
    others: set[tuple[int, End, End]] = field(default_factory=set)
    """Whose ends may be held by connections of others than Services."""
    passing: set[tuple[int, End, End]] = field(default_factory=set)
    """The answers that the node's own may get at a port that is a frontend's."""

    def __post_init__(self) -> None:
        self.ends_known = frozenset(
            [End(k[0], k[1]) for k in self.services]
            + [e for s in self.services.values() for e in s.all]
        )
        self.cluster_ips = frozenset(k[0] for k, s in self.services.items() if s.cluster_ip)
        self.ours = frozenset(k[0] for k in self.services) | self.node.own

    def copy(self) -> Self:
        """What is known now, whatever will be noted later."""
        replies = defaultdict(list, {key: list(flows) for key, flows in self.replies.items()})
        return replace(
            self,
            flows=dict(self.flows),
            replies=replies,
            fragments=dict(self.fragments),
            unseen=dict(self.unseen),
            others=set(self.others),
            passing=set(self.passing),
        )

    def forget(self) -> None:
        """All flows, as the programs are made to."""
        self.flows.clear()
        self.replies.clear()
        self.fragments.clear()
        self.unseen.clear()
        self.others.clear()
        self.passing.clear()

    def note(self, sent: bytes, got: Observed, ruling: Ruling) -> None:
        """What was ruled holds from now on."""
        flow = ruling.flow
        if flow is not None:
            self.flows[flow.forward] = flow
            others = [f for f in self.replies[flow.back] if f.forward != flow.forward]
            self.replies[flow.back] = [*others, flow]
            self.unseen.pop(flow.forward, None)
        found = judge.read(sent)
        if ruling.fragment and found is not None and found.transport is not None:
            after = judge.read(got.frame) if got.verdict != SHOT else None
            self.fragments[datagram_of(found)] = Datagram(
                found.source_port, found.destination_port, after.identification if after else None
            )
            between = judge.read(got.between) if got.between else None
            if between is not None and between.transport is not None:
                self.fragments[datagram_of(between)] = Datagram(
                    between.source_port,
                    between.destination_port,
                    after.identification if after else None,
                )
        if ruling.unseen is not None:
            self.unseen[ruling.unseen] = ruling.hook
            self.flows.pop(ruling.unseen, None)
        ends = self.ends(sent, found) if found is not None else None
        if found is not None and ends is not None and ruling.fate == "passed":
            self.others.add((found.protocol, *ends))
            if found.source in self.node.own and found.protocol == UDP:
                self.passing.add((found.protocol, ends[1], ends[0]))

    def ends(self, sent: bytes, found: Reading) -> tuple[End, End] | None:
        """Source and destination, ports included; None for a later fragment of nobody."""
        ports = (found.source_port, found.destination_port)
        if found.transport is None:
            known = self.fragments.get(datagram_of(found))
            if known is None:
                return None
            ports = (known.source_port, known.destination_port)
        return End(found.source, ports[0]), End(found.destination, ports[1])

    def opens(self, sent: bytes, found: Reading) -> bool:
        """May it begin a connection? All else of unknown connections is the stack's."""
        if found.transport is None or found.protocol not in (TCP, SCTP):
            return True
        if found.protocol == TCP:
            return sent[found.transport + 13] & 0x12 == 0x02
        return sent[found.transport + 12] == 1

    def is_for_us(self, hook: str, sent: bytes) -> bool:
        """Groups' frames and, at an uplink, other hosts' are nobody's business."""
        return not sent[0] & 1 and (hook != UPLINK_IN or sent[:6] == self.node.macs["up0"])

    def is_an_answer(self, hook: str, found: Reading) -> bool:
        """It comes from where a Service is asked: from there nobody opens a connection."""
        service = self.services.get((found.source, found.source_port, found.protocol))
        if service is None or hook in INGRESS:
            return service is not None
        return found.source not in self.node.own  # its own sockets may have a nodePort

    def alike(self, protocol: int, client: End, backend: End) -> bool:
        """May the client have another connection to that backend, so that this one needs another
        port?"""
        return (
            (protocol, client, backend) in self.others
            or any(
                f.protocol == protocol and f.client == client and f.backend == backend
                for f in self.flows.values()
            )
            or any((p, c) == (protocol, client) for p, c, _ in self.unseen)
        )

    def service(self, found: Reading) -> Service | None:
        """Whom a packet asks."""
        key = (found.destination, found.destination_port, found.protocol)
        return self.services.get(key) if found.protocol in (TCP, UDP, SCTP) else None

    def policy(self, hook: str, found: Reading, service: Service) -> tuple[str, frozenset[End]]:
        """The fate of a new connection, and whom it may reach."""
        inside = hook in (POD_IN, *FROM_NODE)
        if service.ranges is not None and not any(
            within(found.source, *allowed) for allowed in service.ranges
        ):
            return "SOURCE_RANGE", frozenset()
        if not service.all:
            return "NO_ENDPOINTS", frozenset()
        local = service.local and (service.cluster_ip or not inside)
        chosen = service.local_backends if local else service.all
        return ("TRANSLATED" if chosen else "NO_LOCAL_ENDPOINTS"), chosen

    def masquerades(self, hook: str, client: End, service: Service, backend: End) -> bool:
        """Must the backend see an address of the node?"""
        if hook == POD_IN:
            return backend.address == client.address
        if hook in FROM_NODE:
            return True  # it chose its source by the way to the VIP
        pod = within(client.address, *self.node.pods)
        return backend not in service.local_backends or (service.cluster_ip and not pod)

    def candidates(self, hook: str, sent: bytes, found: Reading) -> list[Flow]:
        """The flows whose reply this may be, where this hook restores them."""
        ends = self.ends(sent, found)
        if ends is None or found.protocol not in (TCP, UDP, SCTP):
            return []
        flows = self.replies.get((found.protocol, *ends), [])
        if hook in INGRESS:
            return [f for f in flows if f.masqueraded]
        between = [
            f
            for f in self.flows.values()
            if f.masqueraded and f.protocol == found.protocol and f.backend == ends[0]
            if not f.of_node and not f.of_xdp  # all at once
            # the stack may know the client by the port that the backend sees as well
            if ends[1] in (f.client, End(f.client.address, f.seen.port))
        ]
        return flows + between

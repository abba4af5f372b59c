"""What the four TC programs owe each packet: a load balancer in plain Python, which is told what
the programs did and says whether they might.

Where there is a choice (a backend of the set, a free port), whatever the programs chose is noted
and then expected for the rest of the flow. Frames are read and compared by tests.datapath.judge;
nothing is shared with the programs or the planner.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from tests.datapath import judge
from tests.datapath.judge import NEXT, REDIRECT, SHOT, Change, End, Quotation, Reading
from tests.support.packets import ICMP, ICMPV6, SCTP, TCP, UDP

POD_IN, POD_OUT = "pod_ingress", "pod_egress"
UPLINK_IN, UPLINK_OUT = "uplink_ingress", "uplink_egress"
HOOKS = (POD_IN, POD_OUT, UPLINK_IN, UPLINK_OUT)
INGRESS = (POD_IN, UPLINK_IN)

SNAT_PORTS = range(32768, 61000)
BY_LOOPBACK = bytes(12)  # the MAC addresses of what loopback receives

DROPS_OF_POLICY = {"NO_LOCAL_ENDPOINTS", "SOURCE_RANGE"}
BEFORE_ANYTHING = DROPS_OF_POLICY | {"LATER_FRAGMENT", "UNANSWERABLE", "NO_SNAT_SOURCE"}


@dataclass(frozen=True)
class Service:
    """One frontend. `local`: its policy here; `ranges`: who may ask, None: anyone."""

    cluster_ip: bool
    backends: frozenset[End]
    local_backends: frozenset[End] = frozenset()
    local: bool = False
    ranges: tuple[tuple[bytes, int], ...] | None = None

    @property
    def all(self) -> frozenset[End]:
        return self.backends | self.local_backends


@dataclass(frozen=True)
class Route:
    """To a network by a device; `via` is the next hop, None where the network is on the link."""

    network: bytes
    length: int
    device: str | None  # None: nobody is reached by it
    via: bytes | None = None


def within(address: bytes, network: bytes, length: int) -> bool:
    shift = len(address) * 8 - length
    return len(address) == len(network) and (
        int.from_bytes(address) >> shift == int.from_bytes(network) >> shift
    )


@dataclass
class Node:
    """What the node knows about the networks around it."""

    routes: tuple[Route, ...]
    neighbours: Mapping[tuple[str, bytes], bytes]
    macs: Mapping[str, bytes]
    sources: Mapping[str, bytes]  # what is masqueraded with, by device; hairpins: by hook
    own: frozenset[bytes]
    pods: tuple[bytes, int]
    bridge: str

    def strange(self, address: bytes) -> bool:
        """No host's address: there may be a way or not."""
        if len(address) == 4:
            return address[0] in (0, 127) or address[0] >= 224
        return address[0] in (0, 0xFE, 0xFF)

    def route(self, destination: bytes) -> Route:
        fitting = [r for r in self.routes if within(destination, r.network, r.length)]
        return max(fitting, key=lambda route: route.length)

    def way(self, destination: bytes) -> bytes | None:
        """The MAC addresses of a frame sent there; empty while the neighbour is unknown, None where
        there is no way."""
        route = self.route(destination)
        if route.device is None:
            return None
        hop = self.neighbours.get((route.device, route.via or destination))
        return b"" if hop is None else hop + self.macs[route.device]


@dataclass
class Flow:
    """A translated connection. `seen`: the client as its backend sees it; of_node: it is a process
    of this very node, which must receive its answers where it would have asked."""

    protocol: int
    client: End
    vip: End
    backend: End
    seen: End
    masqueraded: bool
    bridged: bool = False
    of_node: bool = False
    answered: bool = False
    ended: bool = False

    @property
    def firm(self) -> bool:
        """Must the programs know it? Others may have made room for new ones."""
        return self.answered and not self.ended

    @property
    def forward(self) -> tuple[int, End, End]:
        return (self.protocol, self.client, self.vip)

    @property
    def back(self) -> tuple[int, End, End]:
        return (self.protocol, self.backend, self.seen)


@dataclass(frozen=True)
class Datagram:
    """What its first fragment told: its ports, and its identification as it went on (None: that
    was not seen)."""

    source_port: int
    destination_port: int
    identification: bytes | None


@dataclass(frozen=True)
class Observed:
    """What a program made of a packet."""

    verdict: int
    frame: bytes
    counted: Counter[str]


@dataclass(frozen=True)
class Ruling:
    """`fault`: what is wrong about it, or "". `fate`: what became of the packet. `flow`: the flow
    that it belongs to, in its new state; `fragment`: its ports are known from now on; `unseen`: the
    tuple of a flow that began, at `hook`, with a packet that was dropped."""

    fault: str
    fate: str
    flow: Flow | None = None
    fragment: bool = False
    unseen: tuple[int, End, End] | None = None
    hook: str = ""


@dataclass
class Reference:
    """Services, and the flows through them so far. `drops`: all reasons to drop a packet."""

    node: Node
    services: dict[tuple[bytes, int, int], Service]
    drops: frozenset[str]
    flows: dict[tuple[int, End, End], Flow] = field(default_factory=dict)
    replies: dict[tuple[int, End, End], list[Flow]] = field(
        default_factory=lambda: defaultdict(list)
    )
    fragments: dict[tuple[bytes, bytes, bytes, int], Datagram] = field(default_factory=dict)
    unseen: dict[tuple[int, End, End], str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.cluster_ips = frozenset(k[0] for k, s in self.services.items() if s.cluster_ip)
        self.ours = frozenset(k[0] for k in self.services) | self.node.own

    def copy(self) -> Reference:
        """What is known now, whatever will be noted later."""
        replies = defaultdict(list, {key: list(flows) for key, flows in self.replies.items()})
        return replace(
            self,
            flows=dict(self.flows),
            replies=replies,
            fragments=dict(self.fragments),
            unseen=dict(self.unseen),
        )

    def forget(self) -> None:
        """All flows, as the programs are made to."""
        self.flows.clear()
        self.replies.clear()
        self.fragments.clear()
        self.unseen.clear()

    def note(self, sent: bytes, got: Observed, ruling: Ruling) -> None:
        """What was ruled holds from now on."""
        flow = ruling.flow
        if flow is not None:
            self.flows[flow.forward] = flow
            others = [f for f in self.replies[flow.back] if f.forward != flow.forward]
            self.replies[flow.back] = [*others, flow]
        found = judge.read(sent)
        if ruling.fragment and found is not None and found.transport is not None:
            after = judge.read(got.frame) if got.verdict != SHOT else None
            self.fragments[_datagram(found)] = Datagram(
                found.source_port, found.destination_port, after.identification if after else None
            )
        if ruling.unseen is not None:
            self.unseen[ruling.unseen] = ruling.hook

    # ruling

    def judge(self, hook: str, sent: bytes, got: Observed) -> Ruling:
        """Whether a program at this hook might do that with a packet. Changes nothing."""
        found = judge.read(sent)
        drops = [reason for reason in got.counted if reason in self.drops]
        if got.verdict == SHOT:
            if len(drops) != 1 or got.counted[drops[0]] != 1:
                return Ruling(f"dropped, counted as {got.counted}", "dropped")
            if drops[0] in BEFORE_ANYTHING and len(got.counted) > 1:
                return Ruling(f"dropped, counted as {got.counted}", "dropped")
            ruling = self._dropped(hook, sent, found, drops[0])
            if found is None or set(got.counted) - {*drops, "NEW", "ESTABLISHED", "REPLY"}:
                return ruling
            ends = self._ends(sent, found)
            begun = "NEW" in got.counted and ends is not None
            return replace(
                ruling,
                fragment=found.fragment and bool(got.counted["ESTABLISHED"] + got.counted["REPLY"]),
                unseen=(found.protocol, *ends) if begun and ends else None,
                hook=hook,
            )
        if drops:
            return Ruling(f"counted as dropped for {drops}, but it was not", "?")
        if got.verdict not in (NEXT, REDIRECT):
            return Ruling(f"verdict {got.verdict}", "?")
        claims = set(got.counted) - {"NEW"}
        if "XDP" in claims:  # of those sent on, how many by XDP
            claims.remove("XDP")
            if (
                hook != UPLINK_IN
                or got.verdict != REDIRECT
                or not claims <= {"ESTABLISHED", "REPLY"}
            ):
                return Ruling(f"counted as {got.counted}", "?")
        if any(count != 1 for count in got.counted.values()) or len(claims) > 1:
            return Ruling(f"counted as {got.counted}", "?")
        if found is None or not claims or claims & {"TRUNCATED", "HEADER_CHAIN"}:
            return self._passed(hook, sent, found, got)
        claim = claims.pop()
        if "NEW" in got.counted and claim != "ESTABLISHED":
            return Ruling(f"counted as {got.counted}", "?")
        if claim == "ESTABLISHED":
            return self._translated(hook, sent, found, got)
        if claim == "REPLY":
            return self._restored(hook, sent, found, got)
        if claim == "ICMP_ERROR":
            return self._error(hook, sent, found, got)
        if claim in ("NO_ENDPOINTS", "UNSERVED_PORT"):
            return self._refused(hook, sent, found, got, claim)
        return Ruling(f"counted as {claim}", "?")

    # what is known of a packet

    def _ends(self, sent: bytes, found: Reading) -> tuple[End, End] | None:
        ports = (found.source_port, found.destination_port)
        if found.transport is None:
            known = self.fragments.get(_datagram(found))
            if known is None:
                return None
            ports = (known.source_port, known.destination_port)
        return End(found.source, ports[0]), End(found.destination, ports[1])

    def _service(self, found: Reading) -> Service | None:
        key = (found.destination, found.destination_port, found.protocol)
        return self.services.get(key) if found.protocol in (TCP, UDP, SCTP) else None

    def _policy(self, hook: str, found: Reading, service: Service) -> tuple[str, frozenset[End]]:
        """The fate of a new connection, and whom it may reach."""
        inside = hook in (POD_IN, UPLINK_OUT)
        if service.ranges is not None and not any(
            within(found.source, *allowed) for allowed in service.ranges
        ):
            return "SOURCE_RANGE", frozenset()
        if not service.all:
            return "NO_ENDPOINTS", frozenset()
        local = service.local and (service.cluster_ip or not inside)
        chosen = service.local_backends if local else service.all
        return ("TRANSLATED" if chosen else "NO_LOCAL_ENDPOINTS"), chosen

    def _masquerades(self, hook: str, client: End, service: Service, backend: End) -> bool:
        if hook == POD_IN:
            return backend.address == client.address
        if hook == UPLINK_OUT:
            return True  # it chose its source by the way to the VIP
        pod = within(client.address, *self.node.pods)
        return backend not in service.local_backends or (service.cluster_ip and not pod)

    def _candidates(self, hook: str, sent: bytes, found: Reading) -> list[Flow]:
        """The flows whose reply this may be, where this hook restores them."""
        ends = self._ends(sent, found)
        if ends is None or found.protocol not in (TCP, UDP, SCTP):
            return []
        flows = self.replies.get((found.protocol, *ends), [])
        if hook in INGRESS:
            return [f for f in flows if f.masqueraded]
        return flows

    # the rulings

    def _dropped(self, hook: str, sent: bytes, found: Reading | None, reason: str) -> Ruling:
        def ruling(fine: bool) -> Ruling:
            return Ruling("" if fine else f"dropped for {reason}", f"dropped: {reason}")

        if found is None:
            return ruling(reason == "REWRITE_FAILED")
        service = self._service(found)
        old = sent[judge.LINK + (8 if found.version == 4 else 7)] <= 1
        if reason == "HOP_LIMIT":
            return ruling(old and hook != POD_OUT)
        if reason in DROPS_OF_POLICY:
            return ruling(
                service is not None
                and hook != POD_OUT
                and self._policy(hook, found, service)[0] == reason
            )
        if reason == "LATER_FRAGMENT":
            return ruling(found.transport is None and found.destination in self.cluster_ips)
        if reason == "NO_ROUTE":
            # to nowhere, or back to somebody nobody has a way to
            ends = {found.source, found.destination}
            clients = {f.client.address for f in self._candidates(hook, sent, found)}
            quoted = judge.read_quotation(sent, found)
            if quoted is not None:
                turned = (quoted.protocol, quoted.destination, quoted.source)
                clients |= {f.client.address for f in self.replies.get(turned, [])}
            return ruling(
                any(self.node.strange(a) or self.node.way(a) is None for a in clients | ends)
            )
        if reason == "NO_SNAT_SOURCE":
            return ruling(service is not None and self.node.strange(found.source))
        if reason == "UNANSWERABLE":
            return ruling(found.destination in self.ours and hook != POD_OUT)
        if reason == "SCTP_FRAGMENT":
            return ruling(found.protocol == SCTP and found.fragment)
        # headers that contradict each other, or a refusal that would not hold them
        bulky = found.transport is not None and found.transport > judge.LINK + 80
        return ruling(reason == "REWRITE_FAILED" and (not found.whole or bulky))

    def _passed(self, hook: str, sent: bytes, found: Reading | None, got: Observed) -> Ruling:
        if (got.verdict, got.frame) != (NEXT, sent):
            return Ruling(f"touched, verdict {got.verdict}, counted as {got.counted}", "passed")
        if "NEW" in got.counted:
            return Ruling("counted as new, and passed", "passed")
        if found is None or not found.whole:
            fine = set(got.counted) <= {"TRUNCATED", "HEADER_CHAIN"}
            return Ruling("" if fine else f"passed, counted as {got.counted}", "passed")
        if got.counted:
            return Ruling(f"can be read, but counted as {got.counted}", "passed")
        return Ruling(self._missed(hook, sent, found), "passed")

    def _missed(self, hook: str, sent: bytes, found: Reading) -> str:
        """What should have been done with a packet that passed."""
        ours = found.destination in self.ours
        quoted = judge.read_quotation(sent, found)
        if quoted is not None:
            return self._missed_error(hook, found, quoted)
        ends = self._ends(sent, found)
        if found.transport is None or ends is None:
            return ""
        flow = self.flows.get((found.protocol, *ends))
        if hook != POD_OUT and ours:
            if flow is not None and flow.firm:
                return "a known flow's packet passed untranslated"
            error = found.protocol in (ICMP, ICMPV6) and _is_icmp_error(sent, found)
            service = self._service(found)
            if service is not None and not self._candidates(hook, sent, found):
                return "a Service's packet passed untranslated"
            if found.destination in self.cluster_ips and not error:
                return "passed for a ClusterIP, and nobody counted it"
        here = hook not in INGRESS or ours
        if here and any(f.firm for f in self._candidates(hook, sent, found)):
            return "a reply was not restored"
        return ""

    def _missed_error(self, hook: str, outer: Reading, quoted: Quotation) -> str:
        if not quoted.whole or (hook in INGRESS and outer.destination not in self.ours):
            return ""
        turned = (quoted.protocol, quoted.destination, quoted.source)
        flow = self.flows.get(turned)
        if flow is not None and flow.firm and hook != POD_OUT:
            return "an error about a known flow's reply passed as it was"
        for flow in self.replies.get(turned, []):
            if flow.firm and (hook not in INGRESS or flow.masqueraded):
                return "an error about a known flow's packet passed as it was"
        return ""

    def _translated(self, hook: str, sent: bytes, found: Reading, got: Observed) -> Ruling:
        fate = "new flow" if "NEW" in got.counted else "translated"

        def wrong(why: str) -> Ruling:
            return Ruling(why, fate)

        ends, after = self._ends(sent, found), judge.read(got.frame)
        if hook == POD_OUT or ends is None or after is None:
            return wrong("translated where nothing is to be")
        client, vip = ends
        known = self.flows.get((found.protocol, client, vip))
        fresh = (found.protocol, client, vip) in self.unseen and known is None
        found = replace(found, source_port=client.port, destination_port=vip.port)
        backend = End(after.destination, after.destination_port)
        seen = End(after.source, after.source_port)
        if found.transport is None:
            service = self._service(found)
            if "NEW" in got.counted or not (known or (fresh and service)):
                return wrong("a later fragment of no flow was translated")
            # its ports are not in it, and as they should be
            backends = {e.address: e for e in service.all} if service else {}
            backend = known.backend if known else backends.get(backend.address, backend)
            seen = replace(seen, port=known.seen.port if known else client.port)
        if "NEW" in got.counted or fresh:
            if known is not None and known.firm:
                return wrong("a known flow began anew")
            if any(f.firm for f in self._candidates(hook, sent, found)):
                return wrong("a reply was taken for a new connection")
            began = self.unseen[found.protocol, client, vip] if fresh else hook
            flow = self._begun(began, found, client, vip, backend, seen)
            if isinstance(flow, str):
                return wrong(flow)
        elif known is None:
            return wrong("translated by a flow that nobody began")
        elif (known.backend, known.seen) != (backend, seen):
            return wrong(
                f"went to {backend} as {seen}, its flow to {known.backend} as {known.seen}"
            )
        else:
            flow = known
        change = Change(None if seen == client else seen, backend)
        strange = self.node.strange(client.address)
        if found.fragment and (flow.masqueraded or seen != client or strange):
            # two clients' must not be mixed up
            first = self.fragments.get(_datagram(found)) if found.transport is None else None
            new = first.identification if first else None
            change = replace(change, identification=new or after.identification)
        fault = self._wrong_way_there(hook, sent, got, change, flow)
        ended = (flow.ended and "NEW" not in got.counted) or _ends_flow(sent, found)
        if found.transport is None:
            return Ruling(fault, fate)
        return Ruling(fault, fate, replace(flow, ended=ended), found.fragment)

    def _begun(
        self, hook: str, found: Reading, client: End, vip: End, backend: End, seen: End
    ) -> Flow | str:
        """The flow that began, or what is wrong about it."""
        service = self._service(found)
        if service is None:
            return "no Service has this address, port and protocol"
        verdict, allowed = self._policy(hook, found, service)
        if backend not in allowed:
            return f"went to {backend}, where the verdict is {verdict}"
        masqueraded = self._masquerades(hook, client, service, backend)
        address = client.address
        if self.node.strange(address) and seen.address == address:
            masqueraded = False  # there is no way from there, and nothing to come back
        if masqueraded:
            hairpin = backend.address == client.address
            device = self.node.route(backend.address).device or ""
            address = self.node.sources[hook if hairpin else device]
        strange = hook == UPLINK_OUT and self.node.strange(client.address)
        if seen.address != address and not (strange and seen.address in self.node.own):
            return f"the backend sees {seen.address.hex()} and not {address.hex()}"
        others = [
            f
            for f in self.replies.get((found.protocol, backend, seen), [])
            if f.forward != (found.protocol, client, vip)
        ]
        if any(f.firm for f in others):
            return "replies look like another flow's"
        if seen.port != client.port:
            if seen.port not in SNAT_PORTS:
                return f"masqueraded with port {seen.port}"
            own = (found.protocol, backend, End(seen.address, client.port))
            hidden = any(
                (protocol, end.port) == (found.protocol, client.port)
                for protocol, end, _ in self.unseen
            )
            # no room beside others of the same tuple: then another port is needed to be found by
            crowded = any(
                f.protocol == found.protocol and (f.client == client or f.seen == own[2])
                for f in self.flows.values()
            )
            if not self.replies.get(own) and not hidden and not crowded:
                return "another port although the client's was free"
        bridged = hook == POD_IN and self.node.route(backend.address).device == self.node.bridge
        bridged = bridged and not self.node.strange(client.address)
        return Flow(
            found.protocol,
            client,
            vip,
            backend,
            seen,
            masqueraded,
            bridged and not masqueraded and seen == client,
            hook == UPLINK_OUT,
        )

    def _by_way(
        self, sent: bytes, got: Observed, change: Change, destination: bytes, hops: int
    ) -> str:
        """Sent out directly."""
        macs = self.node.way(destination)
        if got.verdict != REDIRECT:
            return "handed on to the stack"
        if macs is None and not self.node.strange(destination):
            return "sent where there is no way"
        change = replace(change, macs=macs or None, hops=hops)
        return judge.wrong_rewrite(sent, got.frame, change)

    def _wrong_way_there(
        self, hook: str, sent: bytes, got: Observed, change: Change, flow: Flow
    ) -> str:
        if flow.masqueraded or hook == UPLINK_OUT:
            if hook == POD_IN and flow.backend.address == flow.client.address:
                return self._back_where_it_came_from(sent, got, change)
            hops = 0 if hook == UPLINK_OUT else 1
            fault = self._by_way(sent, got, change, flow.backend.address, hops)
            if fault and hook == UPLINK_OUT and self.node.strange(flow.client.address):
                return judge.wrong_rewrite(sent, got.frame, replace(change, macs=BY_LOOPBACK))
            return fault
        if got.verdict != NEXT:
            return "kept from the stack"
        neighbour = self.node.neighbours.get((self.node.bridge, flow.backend.address))
        bridged = neighbour and replace(change, macs=neighbour + sent[6:12])
        if flow.bridged and bridged and hook == POD_IN:
            return judge.wrong_rewrite(sent, got.frame, bridged)
        fault = judge.wrong_rewrite(sent, got.frame, change)
        if fault and bridged:  # by a flow that another hook began, or for a strange client
            return judge.wrong_rewrite(sent, got.frame, bridged)
        return fault

    @staticmethod
    def _back_where_it_came_from(sent: bytes, got: Observed, change: Change) -> str:
        if got.verdict != REDIRECT:
            return "a hairpin was not sent back"
        macs = sent[6:12] + sent[:6]
        return judge.wrong_rewrite(sent, got.frame, replace(change, macs=macs))

    def _restored(self, hook: str, sent: bytes, found: Reading, got: Observed) -> Ruling:
        candidates = self._candidates(hook, sent, found) or self._hidden(sent, found, got)
        fault = "restored, but it is no flow's reply"
        for flow in candidates:
            change = Change(flow.vip, None if flow.seen == flow.client else flow.client)
            fault = self._wrong_way_back(hook, sent, got, change, flow)
            if not fault:
                ended = flow.ended or _ends_flow(sent, found)
                after = replace(flow, answered=True, ended=ended)
                return Ruling("", "restored", after, found.fragment)
        return Ruling(fault, "restored")

    def _inwards(self, hook: str, flow: Flow) -> bytes | None:
        """The MAC addresses with which an answer to a process of the node's is received where it
        would have asked; None if it is there."""
        if hook == UPLINK_IN and self.node.route(flow.vip.address).device == "up0":
            return None
        macs = self.node.way(flow.vip.address)
        return macs[6:] + macs[:6] if macs else BY_LOOPBACK

    def _hidden(self, sent: bytes, found: Reading, got: Observed) -> list[Flow]:
        """The flow of which only this reply was seen."""
        ends, after = self._ends(sent, found), judge.read(got.frame)
        if ends is None or after is None:
            return []
        client = End(after.destination, after.destination_port)
        vip = End(after.source, after.source_port)
        if (found.protocol, client, vip) not in self.unseen:
            return []
        masqueraded = ends[1].address in self.node.own
        of_node = self.unseen[found.protocol, client, vip] == UPLINK_OUT
        return [Flow(found.protocol, client, vip, *ends, masqueraded, of_node=of_node)]

    def _wrong_way_back(
        self, hook: str, sent: bytes, got: Observed, change: Change, flow: Flow
    ) -> str:
        found = judge.read(sent)
        looped = found is not None and not found.fragment and found.destination in self.ours
        if flow.masqueraded and (hook in INGRESS or (hook == UPLINK_OUT and looped)):
            if hook == POD_IN and flow.client.address == flow.backend.address:
                return self._back_where_it_came_from(sent, got, change)
            if not flow.of_node:
                return self._by_way(sent, got, change, flow.client.address, 1)
            inwards = self._inwards(hook, flow)
            if inwards is not None:
                if got.verdict != REDIRECT:
                    return "not received where the VIP was spoken to"
                return judge.wrong_rewrite(sent, got.frame, replace(change, macs=inwards))
        if got.verdict != NEXT:
            return "kept from the stack"
        return judge.wrong_rewrite(sent, got.frame, change)

    def _error(self, hook: str, sent: bytes, outer: Reading, got: Observed) -> Ruling:
        quoted = judge.read_quotation(sent, outer)
        if quoted is None:
            return Ruling("translated as an ICMP error that it is not", "error")
        turned = (quoted.protocol, quoted.destination, quoted.source)
        fault = "an error about no flow of ours was translated"
        flow = self.flows.get(turned)
        if flow is not None and hook != POD_OUT:
            ends = (flow.backend, flow.seen)
            towards = flow.backend.address if flow.masqueraded else None
            fault = self._wrong_error(hook, sent, outer, got, quoted, ends, towards)
            if not fault:
                return Ruling("", "error")
        for flow in self.replies.get(turned, []):
            ends = (flow.client, flow.vip)
            towards = flow.client.address if flow.masqueraded and hook != POD_OUT else None
            if towards and flow.of_node:
                fault = self._wrong_error_to_node(hook, sent, outer, got, quoted, flow)
            else:
                fault = self._wrong_error(hook, sent, outer, got, quoted, ends, towards)
            if not fault:
                break
        return Ruling(fault, "error")

    @staticmethod
    def _changes(outer: Reading, quoted: Quotation, ends: tuple[End, End]) -> tuple[Change, Change]:
        """What is to become of an error and of its quotation, whose source and destination become
        `ends`."""
        source, destination = ends
        outside = Change(
            destination if outer.source == quoted.destination.address else None,
            source if outer.destination == quoted.source.address else None,
        )
        return outside, Change(source, destination)

    def _wrong_error(
        self,
        hook: str,
        sent: bytes,
        outer: Reading,
        got: Observed,
        quoted: Quotation,
        ends: tuple[End, End],
        towards: bytes | None,
    ) -> str:
        """towards: for whom it is sent out directly; None: by the stack."""
        change, inner = self._changes(outer, quoted, ends)
        if towards is None:
            if got.verdict != NEXT:
                return "an error was kept from the stack"
            return judge.wrong_error(sent, got.frame, change, inner)
        if got.verdict != REDIRECT:
            return "an error was handed on to the stack"
        ways = [self.node.way(towards) or None]
        if hook == UPLINK_OUT and (self.node.strange(towards) or self.node.strange(outer.source)):
            ways.append(BY_LOOPBACK)
        faults = [
            judge.wrong_error(sent, got.frame, replace(change, hops=1, macs=macs), inner)
            for macs in ways
        ]
        return "" if "" in faults else faults[0]

    def _wrong_error_to_node(
        self,
        hook: str,
        sent: bytes,
        outer: Reading,
        got: Observed,
        quoted: Quotation,
        flow: Flow,
    ) -> str:
        change, inner = self._changes(outer, quoted, (flow.client, flow.vip))
        inwards = self._inwards(hook, flow)
        # a router's word is taken where it comes in
        if inwards is None or outer.source != quoted.destination.address:
            if got.verdict != NEXT:
                return "an error was kept from the stack"
            return judge.wrong_error(sent, got.frame, change, inner)
        if got.verdict != REDIRECT:
            return "an error was not received where the VIP was spoken to"
        return judge.wrong_error(sent, got.frame, replace(change, macs=inwards), inner)

    def _refused(self, hook: str, sent: bytes, found: Reading, got: Observed, claim: str) -> Ruling:
        def ruling(fault: str) -> Ruling:
            return Ruling(fault, "refused")

        service = self._service(found)
        if hook == POD_OUT or got.verdict != REDIRECT:
            return ruling(f"refused, verdict {got.verdict}")
        if claim == "UNSERVED_PORT":
            if found.destination not in self.cluster_ips or service is not None:
                return ruling("refused as a port that nobody serves")
        elif service is None or self._policy(hook, found, service)[0] != "NO_ENDPOINTS":
            return ruling("refused for want of endpoints")
        ends = self._ends(sent, found)
        if ends is not None:
            flow = self.flows.get((found.protocol, *ends))
            if flow is not None and flow.firm:
                return ruling("refused a known flow")
        return ruling(judge.wrong_answer(sent, got.frame))


def _datagram(found: Reading) -> tuple[bytes, bytes, bytes, int]:
    """What a datagram's fragments have in common."""
    return found.source, found.destination, found.identification, found.protocol


def _is_icmp_error(frame: bytes, found: Reading) -> bool:
    assert found.transport is not None
    kind = frame[found.transport]
    return kind in (3, 4, 5, 11, 12) if found.version == 4 else kind < 128 or kind == 137


def _ends_flow(frame: bytes, found: Reading) -> bool:
    """FIN or RST; SCTP: ABORT or SHUTDOWN COMPLETE."""
    if found.transport is None:
        return False
    if found.protocol == TCP:
        return bool(frame[found.transport + 13] & 5)
    return found.protocol == SCTP and frame[found.transport + 12] in (6, 14)

"""Packets translated towards a backend, and the flows that begin with them."""

from __future__ import annotations

from dataclasses import replace

from tests.datapath import judge
from tests.datapath.judge import NEXT, Change, End, Reading
from tests.datapath.reference.flows import Flow, datagram_of, ends_flow
from tests.datapath.reference.hooks import FROM_NODE, POD_IN, POD_OUT, Observed, Ruling
from tests.datapath.reference.known import Known
from tests.datapath.reference.ways import BY_LOOPBACK, wrong_by_way, wrong_hairpin

SNAT_PORTS = range(32768, 61000)


def translated(known: Known, hook: str, sent: bytes, found: Reading, got: Observed) -> Ruling:
    fate = "new flow" if "NEW" in got.counted else "translated"

    def wrong(why: str) -> Ruling:
        return Ruling(why, fate)

    ends, after = known.ends(sent, found), judge.read(got.frame)
    if hook == POD_OUT or ends is None or after is None:
        return wrong("translated where nothing is to be")
    client, vip = ends
    before = known.flows.get((found.protocol, client, vip))
    fresh = (found.protocol, client, vip) in known.unseen and not (before and before.firm)
    new = "NEW" in got.counted
    found = replace(found, source_port=client.port, destination_port=vip.port)
    backend = End(after.destination, after.destination_port)
    seen = End(after.source, after.source_port)
    if found.transport is None:
        service = known.service(found)
        if new or not (before or (fresh and service)):
            return wrong("a later fragment of no flow was translated")
        # its ports are not in it, and as they should be
        backends = {e.address: e for e in service.all} if service else {}
        backend = before.backend if before else backends.get(backend.address, backend)
        seen = replace(seen, port=before.seen.port if before else client.port)
    same = before is not None and (before.backend, before.seen) == (backend, seen)
    if new or (fresh and not same):
        if before is not None and before.firm:
            return wrong("a known flow began anew")
        if any(f.firm for f in known.candidates(hook, sent, found)):
            return wrong("a reply was taken for a new connection")
        began = hook if new else known.unseen[found.protocol, client, vip]
        flow = _begun(known, began, found, client, vip, backend, seen)
        if isinstance(flow, str):
            return wrong(flow)
    elif before is None:
        return wrong("translated by a flow that nobody began")
    elif not same:
        return wrong(f"went to {backend} as {seen}, its flow to {before.backend} as {before.seen}")
    else:
        flow = before
    change = Change(None if seen == client else seen, backend)
    strange = known.node.strange(client.address)
    if found.fragment and (flow.masqueraded or seen != client or strange):
        # two clients' must not be mixed up
        first = known.fragments.get(datagram_of(found)) if found.transport is None else None
        other = first.identification if first else None
        change = replace(change, identification=other or after.identification)
    fault = _wrong_way_there(known, hook, sent, got, change, flow)
    ended = (flow.ended and not new) or ends_flow(sent, found)
    if found.transport is None:
        return Ruling(fault, fate)
    return Ruling(fault, fate, replace(flow, ended=ended), found.fragment)


def _begun(
    known: Known, hook: str, found: Reading, client: End, vip: End, backend: End, seen: End
) -> Flow | str:
    """The flow that began, or what is wrong about it."""
    service = known.service(found)
    if service is None:
        return "no Service has this address, port and protocol"
    verdict, allowed = known.policy(hook, found, service)
    if backend not in allowed:
        return f"went to {backend}, where the verdict is {verdict}"
    masqueraded = known.masquerades(hook, client, service, backend)
    address = client.address
    if known.node.strange(address) and seen.address == address:
        masqueraded = False  # there is no way from there, and nothing to come back
    if masqueraded:
        hairpin = backend.address == client.address
        device = known.node.route(backend.address).device or ""
        address = known.node.sources[hook if hairpin else device]
    strange = hook in FROM_NODE and known.node.strange(client.address)
    if seen.address != address and not (strange and seen.address in known.node.own):
        return f"the backend sees {seen.address.hex()} and not {address.hex()}"
    others = [
        f
        for f in known.replies.get((found.protocol, backend, seen), [])
        if f.forward != (found.protocol, client, vip)
    ]
    # of a later fragment, whose flow began with a dropped packet, the port is not known
    if found.transport is not None and any(f.firm for f in others):
        return "replies look like another flow's"
    if seen.port != client.port:
        if seen.port not in SNAT_PORTS:
            return f"masqueraded with port {seen.port}"
        own = (found.protocol, backend, End(seen.address, client.port))
        hidden = any(
            (protocol, end.port) == (found.protocol, client.port)
            for protocol, end, _ in known.unseen
        )
        if not known.replies.get(own) and not hidden and not crowded(known, own[0], client, own[2]):
            return "another port although the client's was free"
    bridged = hook == POD_IN and known.node.route(backend.address).device == known.node.bridge
    bridged = bridged and not known.node.strange(client.address)
    return Flow(
        found.protocol,
        client,
        vip,
        backend,
        seen,
        masqueraded,
        bridged and not masqueraded and seen == client,
        hook in FROM_NODE,
    )


def crowded(known: Known, protocol: int, client: End, seen: End) -> bool:
    """May there be no room beside others of the client's tuple, or of the one that it is seen as?
    Then another port is needed to be found by."""
    return any(
        f.protocol == protocol and (f.client in (client, seen) or f.seen == seen)
        for f in known.flows.values()
    )


def _wrong_way_there(
    known: Known, hook: str, sent: bytes, got: Observed, change: Change, flow: Flow
) -> str:
    if flow.masqueraded or hook in FROM_NODE:
        if hook == POD_IN and flow.backend.address == flow.client.address:
            return wrong_hairpin(sent, got, change)
        hops = 0 if hook in FROM_NODE else 1
        fault = wrong_by_way(known, sent, got, change, flow.backend.address, hops)
        if fault and hook in FROM_NODE and known.node.strange(flow.client.address):
            return judge.wrong_rewrite(sent, got.frame, replace(change, macs=BY_LOOPBACK))
        return fault
    if got.verdict != NEXT:
        return "kept from the stack"
    neighbour = known.node.neighbours.get((known.node.bridge, flow.backend.address))
    bridged = neighbour and replace(change, macs=neighbour + sent[6:12])
    if flow.bridged and bridged and hook == POD_IN:
        return judge.wrong_rewrite(sent, got.frame, bridged)
    fault = judge.wrong_rewrite(sent, got.frame, change)
    if fault and bridged:  # by a flow that another hook began, or for a strange client
        return judge.wrong_rewrite(sent, got.frame, bridged)
    return fault

"""Packets translated towards a backend, and the flows that begin with them."""

from __future__ import annotations

from dataclasses import replace

from tests.datapath import judge
from tests.datapath.judge import NEXT, Change, End, Reading
from tests.datapath.reference.flows import Flow, datagram_of, ends_flow
from tests.datapath.reference.hooks import (
    FROM_NODE,
    INGRESS,
    POD_IN,
    POD_OUT,
    Observed,
    Ruling,
)
from tests.datapath.reference.known import Known
from tests.datapath.reference.ways import BY_LOOPBACK, wrong_by_way

SNAT_PORTS = range(32768, 61000)


def translated(known: Known, hook: str, sent: bytes, found: Reading, got: Observed) -> Ruling:
    fate = "new flow" if "NEW" in got.counted else "translated"

    def wrong(why: str) -> Ruling:
        return Ruling(why, fate)

    ends, after = known.ends(sent, found), judge.read(got.frame)
    if ends is None or after is None:
        return wrong("translated where nothing is to be")
    client, vip = ends
    if after.destination == vip.address and known.service(found) is None:
        return _moved(known, hook, sent, found, got, End(after.source, after.source_port))
    if hook == POD_OUT:
        return wrong("translated where nothing is to be")
    before = known.flows.get((found.protocol, client, vip))
    fresh = (found.protocol, client, vip) in known.unseen and not (before and before.firm)
    new = "NEW" in got.counted
    found = replace(found, source_port=client.port, destination_port=vip.port)
    backend = End(after.destination, after.destination_port)
    seen = End(after.source, after.source_port)
    halfway = before is not None and before.masqueraded and not new
    if before and halfway and got.verdict == NEXT and hook in INGRESS:
        # the stack does not send it on
        ported = End(client.address, before.seen.port)
        other = after.identification if found.fragment else None
        changes = [
            Change(None, before.backend, identification=other),
            Change(ported, before.backend, identification=other),
        ]
        faults = [judge.wrong_rewrite(sent, got.frame, change) for change in changes]
        ended = replace(before, ended=True) if ends_flow(sent, found) else None
        return Ruling("" if "" in faults else faults[0], fate, ended, found.fragment)
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
        if new and not known.opens(sent, found):
            return wrong("a connection began in its middle")
        if known.is_an_answer(hook, found):
            return wrong("an answer was taken for a new connection")
        began = hook if new else known.unseen[found.protocol, client, vip]
        if hook in INGRESS and _only_entered(known, began, client, got, backend, found):
            return _entered(known, began, sent, found, got, backend)
        flow = _begun(known, began, found, client, vip, backend, seen)
        if isinstance(flow, str):
            return wrong(flow)
        flow = replace(flow, of_xdp=bool(got.counted["XDP"]))
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
        if hook in FROM_NODE and not flow.of_node:
            other = None  # its first one was given another where it left, and this is not it
        change = replace(change, identification=other or after.identification)
    fault = _wrong_way_there(known, hook, sent, got, change, flow)
    ended = (flow.ended and not new) or ends_flow(sent, found)
    if found.transport is None:
        return Ruling(fault, fate)
    return Ruling(fault, fate, replace(flow, ended=ended), found.fragment)


def _only_entered(
    known: Known, began: str, client: End, got: Observed, backend: End, found: Reading
) -> bool:
    """Is it to be masqueraded where it leaves, and does the stack not send it on?"""
    service = known.service(found)
    if got.verdict != NEXT or service is None:
        return False
    return known.masquerades(began, client, service, backend)


def _entered(
    known: Known, hook: str, sent: bytes, found: Reading, got: Observed, backend: End
) -> Ruling:
    """Its flow is not known as the backend will see it."""
    service = known.service(found)
    assert service is not None
    verdict, allowed = known.policy(hook, found, service)
    fault = "" if backend in allowed else f"went to {backend}, where the verdict is {verdict}"
    after = judge.read(got.frame)
    assert after is not None
    source = End(found.source, after.source_port)
    kept = source.port == found.source_port
    other = after.identification if found.fragment else None
    change = Change(None if kept else source, backend, identification=other)
    fault = fault or judge.wrong_rewrite(sent, got.frame, change)
    ends = known.ends(sent, found)
    unseen = (found.protocol, *ends) if ends else None
    return Ruling(fault, "entered", fragment=found.fragment, unseen=unseen, hook=hook)


def _moved(
    known: Known, hook: str, sent: bytes, found: Reading, got: Observed, seen: End
) -> Ruling:
    """A connection past the Services whose own port a flow has: only that changes."""
    fate = "moved"
    ends = known.ends(sent, found)
    assert ends is not None
    client, backend = ends
    before = known.flows.get((found.protocol, client, backend))
    own = hook not in INGRESS
    if before is None:
        alike = known.alike(found.protocol, client, backend)
        taken = known.replies.get((found.protocol, backend, client)) or known.unseen
        if not (alike or taken) or "NEW" not in got.counted:
            return Ruling("moved to another port although its own was free", fate)
        if seen.port not in SNAT_PORTS or not (
            seen.address == client.address or (own and seen.address in known.node.own)
        ):
            return Ruling(f"moved to {seen}", fate)
    elif before.seen != seen:
        return Ruling(f"seen as {seen} and not as {before.seen}", fate)
    if got.verdict != NEXT:
        return Ruling("kept from its way", fate)
    after = judge.read(got.frame)
    other = after.identification if after and found.fragment else None
    fault = judge.wrong_rewrite(sent, got.frame, Change(seen, None, identification=other))
    flow = Flow(found.protocol, client, backend, backend, seen, own, of_node=own)
    ended = ends_flow(sent, found)
    return Ruling(fault, fate, replace(before or flow, ended=ended), found.fragment)


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
        needed = known.alike(found.protocol, client, backend) or (client.port == backend.port)
        needed = needed or (found.protocol, End(seen.address, client.port), backend) in known.others
        if (
            not known.replies.get(own)
            and not hidden
            and not needed
            and not crowded(known, own[0], client, own[2])
        ):
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
        older = 0 if hook in FROM_NODE else 1
        fault = wrong_by_way(known, sent, got, change, flow.backend.address, older)
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

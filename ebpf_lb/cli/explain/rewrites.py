"""What changes in the packets, and where, on their way there and back.

Where the programs were run, on a made packet or by a socket of nobody's, this tells what they did,
hop by hop. Where they could not be (they are of another version), it follows from the verdict.
"""

from typing import TYPE_CHECKING

from ebpf_lb.cli.beyond import Route
from ebpf_lb.cli.explain.ends import Asker
from ebpf_lb.cli.explain.explanation import Explanation, Step
from ebpf_lb.cli.explain.steps import entry_of
from ebpf_lb.model.values import format_address, format_endpoint

if TYPE_CHECKING:
    from ebpf_lb.datapath.dry_run import Hop, Journey
    from ebpf_lb.datapath.question import Decision
    from ebpf_lb.datapath.reader import View
    from ebpf_lb.datapath.reader.services import Frontend


def say_journey(
    found: Explanation,
    journey: "Journey",
    decision: "Decision",
    asker: Asker,
    frontend: "Frontend",
) -> None:
    """What the programs did."""
    for hop in journey.there:
        _say_hop(found, hop, _why_masqueraded(decision, asker, frontend), asker)
    found.source = format_endpoint(*journey.seen.source)
    last = journey.there[-1]
    if not decision.masquerade:
        rules = ("VE-13",) if asker.client.value == "REMOTE" else ()
        says = f"The backend sees its client as it is, {found.source}."
        found.there.append(Step(last.at, says, rules))
    if not last.goes_on and asker.client.value not in ("NODE", "LOCALHOST"):
        by = "XDP sends it on" if last.kind == "XDP" else "hostRouting: bpf"
        found.there.append(Step(last.at, f"It goes on from here, past the host's stack ({by})."))
    _say_answer(found, journey)


def _say_hop(found: Explanation, hop: "Hop", masqueraded: tuple[str, str], asker: Asker) -> None:
    before, after = hop.before, hop.after
    if hop.kind == "XDP" and hop.goes_on:
        found.there.append(Step(hop.at, "XDP leaves it, as it came, to the program at TC."))
    if before.destination != after.destination:
        says = (
            f"DNAT: the destination {format_endpoint(*before.destination)} becomes "
            f"{format_endpoint(*after.destination)}."
        )
        found.there.append(Step(hop.at, says))
    if before.source == after.source:
        return
    why, rule = masqueraded
    if before.source[0] == after.source[0]:
        why, rule = "another connection has its port there already", "CO-28"
    source = format_endpoint(*before.source)
    says = f"SNAT: the source {source} becomes {format_endpoint(*after.source)}: {why}."
    found.there.append(Step(hop.at, says, (rule,)))


def _say_answer(found: Explanation, journey: "Journey") -> None:
    """The way back, as the programs took the made answer."""
    asked = journey.there[0].before
    first = journey.back[0] if journey.back else None
    says = f"{found.backend} answers {found.source}"
    if first is not None and first.before.destination != first.after.destination:
        says += ", which is the client again from here on"
    found.back.append(Step(first.at if first else "from this node", f"{says}."))
    for hop in journey.back:
        if hop.before.source != hop.after.source:
            says = (
                f"The source {found.backend} becomes {format_endpoint(*hop.after.source)} again: "
                "the client hears from whom it asked."
            )
            found.back.append(Step(hop.at, says))
    if (lost := journey.lost) is not None:
        why = f" {lost.why.name}: {lost.why.sentence}." if lost.why else ""
        found.trouble(f"The answer ends at {lost.at}.{why}")
    elif (heard := journey.heard) is not None and (
        (heard.source, heard.destination) != (asked.destination, asked.source)
    ):
        found.trouble(
            f"The answer would come from {format_endpoint(*heard.source)} to "
            f"{format_endpoint(*heard.destination)}, which the client does not accept: the "
            "hooks on its way back are not as they should be (`ebpf-lb status`)."
        )


def say_rewrites(
    view: "View",
    found: Explanation,
    decision: "Decision",
    asker: Asker,
    route: Route,
    frontend: "Frontend",
) -> None:
    """What changes in the packet, and where, and how the reply comes back."""
    from ebpf_lb.datapath.reader.node import interfaces

    assert decision.backend is not None
    entry = entry_of(view, asker, frontend.protocol or "")
    found.there.append(
        Step(entry, f"DNAT: the destination {found.frontend} becomes {found.backend}.")
    )
    found.source = asker.text
    if asker.unbound and route.source:
        found.source = format_endpoint(route.source, asker.port)
    leaves = "loopback" if route.local else f"{route.interface}, egress"
    masqueraded = decision.masquerade and not route.local
    if masqueraded:
        by_interface = {one.ifindex: one.source for one in interfaces(view)}
        own = by_interface.get(route.ifindex) or route.source
        found.source = format_address(own) if own else "an address of this node"
        why, rule = _why_masqueraded(decision, asker, frontend)
        found.there.append(
            Step(
                leaves,
                f"SNAT: the source {asker.text} becomes {found.source}: {why}.",
                (rule,),
            )
        )
    else:
        rules = ("VE-13",) if asker.client.value == "REMOTE" else ()
        if decision.masquerade:  # as kube-proxy's rules see only what leaves the node
            rules = ("KI-8",)
        found.there.append(
            Step(leaves, f"The backend sees its client as it is, {found.source}.", rules)
        )
    found.back.append(
        Step(
            f"from {route.interface}" if not route.local else "from this node",
            f"{found.backend} answers {found.source}"
            + (", which is the client again from here on." if masqueraded else "."),
        )
    )
    to = asker.interface or "the socket"
    found.back.append(
        Step(
            f"towards {to}",
            f"The source {found.backend} becomes {found.frontend} again: the client hears from "
            "whom it asked.",
        )
    )


def _why_masqueraded(decision: "Decision", asker: Asker, frontend: "Frontend") -> tuple[str, str]:
    if decision.backend == asker.address:
        return "the client is the backend, and would answer itself", "VE-14"
    if asker.client.value == "REMOTE" and not decision.on_node and frontend.kind != "CLUSTER_IP":
        return "the backend is on another node, and its answer must come back by this one", "VE-3"
    if frontend.kind == "CLUSTER_IP" and not (
        asker.client.value == "REMOTE" and not decision.on_node
    ):
        return "masqueradeAll, or a client outside the pods' networks", "VE-15"
    return "its answer must come back by this node", "VE-16"

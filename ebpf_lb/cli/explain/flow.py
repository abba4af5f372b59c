"""Connections that exist: what was decided on them, and what became of them."""

from typing import TYPE_CHECKING, Any

from ebpf_lb.cli import output
from ebpf_lb.cli.beyond import route_to
from ebpf_lb.cli.beyond.route import about_route
from ebpf_lb.cli.choice import is_service
from ebpf_lb.cli.explain.ends import address_and_port
from ebpf_lb.cli.explain.explanation import Explanation, Step
from ebpf_lb.errors import UserError
from ebpf_lb.model.values import format_endpoint

if TYPE_CHECKING:
    from ebpf_lb.datapath.reader import View
    from ebpf_lb.datapath.reader.flows import Entry

_SHOWN = 10
_STATES = {
    "NEW": "the backend has not answered yet",
    "ANSWERED": "the backend has answered, the client not yet again",
    "REPEATED": "both have talked, the backend not yet again",
    "ABORTED": "one end refused it before both had talked",
    "ESTABLISHED": "both ends talk",
    "ORIGINAL_FIN": "the client has closed its side",
    "REPLY_FIN": "the backend has closed its side",
    "CLOSING": "both ends have closed",
    "RESET": "an end has reset it",
}


def explain_flows(view: "View", origin: str | None, target: str, form: str) -> None:
    """One end alone is the client's, if it is an address."""
    client = address_and_port(origin if origin is not None else target)
    if client is None and origin is not None:
        raise UserError(f"{origin!r} is not an address: say whose connections as ADDRESS[:PORT].")
    asked = target if origin is not None or client is None else None
    found = [_explanation(view, one, owner) for one, owner in _matching(view, client, asked)]
    if form == "json":
        output.say(output.as_json({"flows": [one.row() for one in found]}))
        return
    if not found:
        output.say(
            "No such connection is translated here. Those of the node's own processes are "
            "translated at the socket, and have no entry."
        )
        return
    output.say("\n\n".join(one.text() for one in found[:_SHOWN]))
    if len(found) > _SHOWN:
        output.say(f"… and {len(found) - _SHOWN:,} more: `ebpf-lb flows` lists them.")


def _matching(
    view: "View", client: tuple[bytes, int | None] | None, asked: str | None
) -> "list[tuple[Entry, str | None]]":
    from ebpf_lb.datapath.reader.flows import FLOW, entries
    from ebpf_lb.datapath.reader.owners import Owners

    owners, place = Owners(view), address_and_port(asked) if asked else None
    found = []
    for one in entries(view, lambda word: word.kind == FLOW, client[0] if client else b""):
        if client and (one.client != client[0] or client[1] not in (None, one.client_port)):
            continue
        if place and (one.vip != place[0] or place[1] not in (None, one.vip_port)):
            continue
        owner = owners.service(one)
        if asked is None or place or is_service(asked, owner):
            found.append((one, owner))
    return found


def _explanation(view: "View", one: "Entry", owner: str | None) -> Explanation:
    from ebpf_lb.datapath.reader.flows import age_s
    from ebpf_lb.datapath.reader.node import source
    from ebpf_lb.datapath.reader.services import backends

    word = one.word
    vip, backend = (
        format_endpoint(one.vip, one.vip_port),
        format_endpoint(one.backend, one.backend_port),
    )
    client = format_endpoint(one.client, one.client_port)
    found = Explanation(
        client, "an existing connection", f"{vip}/{word.protocol}", "forward", "ESTABLISHED",
        service=owner, frontend=vip, backend=backend, source=client,
    )  # fmt: skip
    age = age_s(view, word)
    heard = "" if age is None else f", last heard of {age:.0f} s ago"
    found.there.append(
        Step("state", f"{word.state}: {_STATES.get(word.state, 'as it says')}{heard}.")
    )
    if word.state == "NEW":
        found.trouble(f"{backend} has not answered.")
    if word.state == "ABORTED":
        found.trouble("It was refused before both ends had talked: does anything listen there?")
    if owner is None:
        found.there.append(Step("", f"{vip} is not a Service's any more; the connection goes on."))
    own = source(view, word.source_id)
    if own:
        port = one.snat_port or one.client_port
        found.source = format_endpoint(own, port)
    elif one.snat_port:
        found.source = format_endpoint(one.client, one.snat_port)
    found.there.append(Step("", f"DNAT: the destination {vip} becomes {backend}."))
    if found.source != client:
        found.there.append(Step("", f"SNAT: the source {client} becomes {found.source}."))
    usable = [
        record
        for record in backends(view)
        if (record.address, record.port) == (one.backend, one.backend_port)
        and record.service_id == word.service_id
    ]
    _say_usable(found, usable, backend)
    found.back.append(
        Step("", f"{backend} answers {found.source}; its answers come from {vip} to {client}.")
    )
    for finding in about_route(route_to(one.backend), one.backend):
        (found.troubles if finding.trouble else found.beyond).append(finding.text)
    return found


def _say_usable(found: Explanation, usable: list[Any], backend: str) -> None:
    sets = {flag for record in usable for flag in record.flags if flag.startswith("IN_")}
    if found.service and not sets:
        found.there.append(
            Step(
                "",
                f"No new connection goes to {backend} any more; this one stays until it closes.",
            )
        )

"""`ebpf-lb flows`: the connections that this node translates."""

import heapq
from collections.abc import Callable, Iterator
from itertools import chain
from typing import TYPE_CHECKING, Any, NamedTuple

import click
from click.shell_completion import CompletionItem

from ebpf_lb.cli import output
from ebpf_lb.cli.choice import (
    Place,
    backend_option,
    client_option,
    is_service,
    service_option,
)
from ebpf_lb.cli.listing import Listing, listing_options
from ebpf_lb.model.values import Family, format_address, format_endpoint

if TYPE_CHECKING:
    from ebpf_lb.datapath.reader import View
    from ebpf_lb.datapath.reader.flows import Entry, Word


class Found(NamedTuple):
    """`service`: None where it is nobody's any more, or never was a Service's."""

    view: "View"
    entry: "Entry"
    service: str | None


def _states(
    ctx: click.Context, param: click.Parameter, incomplete: str
) -> list[CompletionItem | str]:
    from ebpf_lb.datapath.layout import load

    known = (name.removeprefix("FLOW_") for name in load(Family.IPV4).enum("flow_state"))
    return [name for name in known if name.startswith(incomplete.upper())]


_SORTS = ["client", "age", "service", "backend", "state"]


@click.command()
@service_option
@backend_option
@client_option
@click.option("--state", metavar="STATE", shell_complete=_states, help="Only in this state.")
@click.option("--unanswered", is_flag=True, help="Only those that nobody has answered yet.")
@click.option(
    "--others",
    is_flag=True,
    help="Also entries that are not connections to Services: signposts, and what passes them by.",
)
@click.option(
    "--sort",
    type=click.Choice(_SORTS),
    help="Sort by this, which reads the whole table: by age (the longest idle first) a second for "
    "half a million connections, by the others some; default: the table's own order, at once.",
)
@click.option("--delete", is_flag=True, help="End these connections, after asking.")
@click.option("--yes", is_flag=True, help="With --delete: do not ask.")
@listing_options
def flows(
    service: str | None,
    backend: Place | None,
    client: Place | None,
    state: str | None,
    unanswered: bool,
    others: bool,
    sort: str | None,
    delete: bool,
    yes: bool,
    listing: Listing,
) -> None:
    """List the connections that this node translates: client, address asked, backend.

    Connections of the node's own processes are translated at the socket and have no flow.
    """
    by_age = sort == "age" and not delete
    if delete and listing.watch:
        raise click.UsageError("--delete and --watch exclude each other.")

    def find() -> Iterator[Found]:
        each = [
            _matching(
                view, service, backend, client, state, unanswered, others or delete, by_age=by_age
            )
            for view in listing.views(service)
        ]
        yield from heapq.merge(*each, key=_ORDERS["age"]) if by_age else chain(*each)

    def show() -> None:
        wanted = listing.rows
        rows = _first(find(), wanted, None if by_age else sort)
        if listing.form == "json":
            output.say(output.as_json({"flows": [_row(one) for one in rows[:wanted]]}))
            return
        if not rows:
            output.say("No such connections.")
            return
        # one more is looked for, not all: half a million would take their time
        more = wanted is not None and len(rows) > wanted
        output.say(_table(rows[:wanted], listing.wide), output.more(0, None) if more else "")

    if delete:
        _delete(list(find()), yes)
    else:
        listing.repeat(show)


def _matching(
    view: "View",
    service: str | None,
    backend: Place | None,
    client: Place | None,
    state: str | None,
    unanswered: bool,
    others: bool,
    *,
    by_age: bool,
) -> Iterator[Found]:
    from ebpf_lb.datapath.reader.flows import FLOW, entries, longest_idle
    from ebpf_lb.datapath.reader.owners import Owners
    from ebpf_lb.datapath.reader.summary import UNANSWERED

    width = view.family.address_bytes
    if any(one and len(one.network.address) != width for one in (backend, client)):
        return
    known = view.short("flow_state")
    if state is not None and state.upper() not in known:
        raise click.BadParameter(
            f"there is no state {state!r}; there are {', '.join(known)}.", param_hint="--state"
        )

    def wanted(word: "Word") -> bool:
        return (
            (others or word.kind == FLOW)
            and (state is None or word.state == state.upper())
            and (not unanswered or word.state in UNANSWERED)
            and (service is None or is_service(service, view.service(word.service_id)))
        )

    owners = Owners(view)
    holds = (client.whole if client else b"") or (backend.whole if backend else b"")
    for one in (longest_idle if by_age else entries)(view, wanted, holds):
        if (client is None or client.holds(one.client, one.client_port)) and (
            backend is None or backend.holds(one.backend, one.backend_port)
        ):
            owner = owners.service(one)
            if is_service(service, owner):
                yield Found(view, one, owner)


def _first(found: Iterator[Found], wanted: int | None, sort: str | None) -> list[Found]:
    """So many, and one more if there is one."""
    room = None if wanted is None else wanted + 1
    if sort is None:
        rows = []
        for one in found:
            rows.append(one)
            if room is not None and len(rows) == room:
                break
        return rows
    key = _ORDERS[sort]
    return sorted(found, key=key) if room is None else heapq.nsmallest(room, found, key=key)


def _age(found: Found) -> float:
    from ebpf_lb.datapath.reader.flows import age_s

    age = age_s(found.view, found.entry.word)
    return 0 if age is None else age


_ORDERS: dict[str, Callable[[Found], Any]] = {
    "client": lambda found: (found.entry.client, found.entry.client_port),
    "age": lambda found: -_age(found),
    "service": lambda found: (found.service or "", found.entry.client),
    "backend": lambda found: (found.entry.backend, found.entry.backend_port, found.entry.client),
    "state": lambda found: (found.entry.word.state, found.entry.client),
}


def _row(found: Found) -> dict[str, Any]:
    from ebpf_lb.datapath.dump.decoders import flow_row

    family = {"family": found.view.family.directory}
    return flow_row(found.view, found.entry, found.service) | family


def _table(rows: list[Found], wide: bool) -> str:
    from ebpf_lb.datapath.reader.flows import PASS, SIGNPOST
    from ebpf_lb.datapath.reader.node import source

    lines = []
    for found in rows:
        view, one, owner = found
        word = one.word
        if word.kind == SIGNPOST:
            asked = f"(reply to {format_endpoint(one.vip, one.vip_port)})"
            service = "signpost"
        else:
            asked = format_endpoint(one.vip, one.vip_port)
            service = owner or ("no Service's" if word.kind == PASS else "gone")
        address = source(view, word.source_id) if word.kind != SIGNPOST else None
        snat = format_address(address) if address else ""
        if one.snat_port and word.kind != SIGNPOST:
            snat = format_endpoint(address, one.snat_port) if address else f":{one.snat_port}"
        lines.append(
            [
                word.protocol,
                format_endpoint(one.client, one.client_port),
                asked,
                format_endpoint(one.backend, one.backend_port),
                word.state,
                f"{_age(found):.0f}s",
                service,
                snat,
            ]
        )
    header = ["PROTO", "CLIENT", "ASKED", "BACKEND", "STATE", "IDLE", "SERVICE", "SNAT"]
    if not any(line[-1] for line in lines):
        header, lines = header[:-1], [line[:-1] for line in lines]
    return output.table(header, lines, right=["IDLE"], wide=wide)


def _delete(found: list[Found], yes: bool) -> None:
    from ebpf_lb.datapath.flow_end import FlowEnd
    from ebpf_lb.datapath.reader.flows import FLOW

    number = sum(one.entry.word.kind == FLOW for one in found)
    if not found:
        output.say("No such connections.")
        return
    output.say(
        _table([one for one in found if one.entry.word.kind == FLOW][: output.SCREEN], False)
    )
    if number > output.SCREEN:
        output.say(f"… and {number - output.SCREEN:,} more")
    if not yes:
        click.confirm(
            f"End {number:,} connections on this node? Their clients time out, or connect again",
            abort=True,
        )
    ended = 0
    for view in {id(one.view): one.view for one in found}.values():
        with FlowEnd(view) as end:
            for other, one, _ in found:
                if other is view and end(one) and one.word.kind == FLOW:
                    ended += 1
    output.say(f"Ended {ended:,} connections.")

"""`ebpf-lb monitor`: what happens, as it happens."""

import json
import sys
import textwrap
import time
from collections.abc import Iterator
from contextlib import ExitStack
from datetime import datetime
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ebpf_lb.cli import names, output
from ebpf_lb.cli.choice import (
    Place,
    client_option,
    families,
    family_option,
    is_service,
    must_know,
    service_option,
)
from ebpf_lb.cli.options import bpffs_option
from ebpf_lb.cli.pcapng import PcapNg
from ebpf_lb.datapath.layout import Verdict
from ebpf_lb.errors import UserError
from ebpf_lb.model.values import Family, format_address, format_endpoint

if TYPE_CHECKING:
    from ebpf_lb.datapath.reader.events import Event, Listener

_LOOK_EVERY_S = 0.2
_RENEW_EVERY_S = 1.0
_COLOURS = {"forward": "green", "reject": "red", "drop": "red", "pass": "yellow"}


@click.command()
@click.option("--drops", is_flag=True, help="What is dropped, refused or left alone (the default).")
@click.option("--new", is_flag=True, help="New connections.")
@click.option("--all", "everything", is_flag=True, help="Both.")
@service_option
@client_option
@click.option(
    "--reason",
    "reasons",
    multiple=True,
    metavar="REASON",
    shell_complete=names.reasons,
    help="Only for this reason; may be given again.",
)
@click.option("--count", type=click.IntRange(min=1), help="End after so many events.")
@click.option(
    "--write",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="FILE.pcapng",
    help="Write the packets' headers to a file, each with its reason as comment.",
)
@output.output_option
@family_option
@bpffs_option
def monitor(
    drops: bool,
    new: bool,
    everything: bool,
    service: str | None,
    client: Place | None,
    reasons: tuple[str, ...],
    count: int | None,
    write: Path | None,
    form: str,
    family: str | None,
    bpffs: Path,
) -> None:
    """Show drops, refusals and new connections live, with their reason. End it with Ctrl-C.

    An event is told by the packet at which it happened; later packets of a connection are not
    events. Whoever reads too slowly is told how many were lost; nothing waits for a reader. JSON
    has one event on each line.
    """
    from ebpf_lb.datapath.layout import load
    from ebpf_lb.datapath.reader import open_views
    from ebpf_lb.datapath.reader.events import Listener

    known = {one.name for one in load(Family.IPV4).reasons.values()}
    chosen = {name.upper() for name in reasons}
    if unknown := chosen - known:
        raise click.BadParameter(
            f"there is no reason {', '.join(sorted(unknown))}; `ebpf-lb reasons` lists them.",
            param_hint="--reason",
        )
    views = open_views(bpffs, families(family))
    must_know(service, {one.service for view in views for one in view.names.values()})

    def wanted(event: "Event") -> bool:
        return (
            is_service(service, event.service)
            and (not chosen or event.reason.name in chosen)
            and (
                client is None
                or (event.source is not None and client.holds(event.source, event.source_port))
            )
        )

    with ExitStack() as stack:
        listeners = [stack.enter_context(Listener(view)) for view in views]
        file = None
        if write is not None:
            application = f"ebpf-lb {version('ebpf-lb')}"
            try:
                opened = write.open("wb")
            except OSError as error:
                raise UserError(f"{write} cannot be written: {error.strerror}.") from error
            file = stack.enter_context(PcapNg(opened, application))
        shown = 0
        since = time.time_ns() - time.clock_gettime_ns(time.CLOCK_MONOTONIC)
        for event in _events(listeners, everything or drops or not new, everything or new, form):
            if not wanted(event):
                continue
            _show(event, since, form)
            if file is not None and event.packet:
                file.write(
                    event.packet,
                    event.packet_bytes,
                    event.time_ns + since,
                    _interface(event),
                    event.link_header > 0,
                    _comment(event),
                )
            shown += 1
            if shown == count:
                break


def _events(listeners: "list[Listener]", drops: bool, new: bool, form: str) -> "Iterator[Event]":
    """In order, until interrupted."""
    renewed, lost = 0.0, 0
    try:
        while True:
            if time.monotonic() - renewed >= _RENEW_EVERY_S:
                renewed = time.monotonic()
                for listener in listeners:
                    listener.listen(drops=drops, new=new)
            found = [event for listener in listeners for event in listener.take()]
            yield from sorted(found, key=lambda event: event.time_ns)
            missed = sum(listener.lost for listener in listeners)
            if missed > lost:
                _say_lost(missed - lost, form)
                lost = missed
            sys.stdout.flush()
            time.sleep(_LOOK_EVERY_S)
    except KeyboardInterrupt:
        return


def _say_lost(number: int, form: str) -> None:
    if form == "json":
        print(json.dumps({"schemaVersion": output.SCHEMA_VERSION, "lost": number}))
    else:
        output.say(click.style(f"({number:,} events came too fast, and are lost)", fg="yellow"))


def _show(event: "Event", since_ns: int, form: str) -> None:
    if form == "json":
        print(json.dumps(_row(event, since_ns)))
        return
    moment = datetime.fromtimestamp((event.time_ns + since_ns) / 1e9)
    reason = event.reason
    stamp, head = f"{moment:%H:%M:%S.%f}"[:-3], f"{reason.verdict:<7} {reason.name}"
    backend = f" -> {format_endpoint(event.backend, event.backend_port)}" if event.backend else ""
    talk = f"{_talk(event)}{backend}"
    painted = f"{stamp} {click.style(head, fg=_COLOURS[reason.verdict])}"
    if len(stamp) + len(head) + len(talk) + 3 <= output.columns():
        output.say(f"{painted}  {talk}")
    else:
        output.say(painted, _below(talk))
    output.say(click.style(_below(_where(event)), dim=True))
    if reason.verdict is not Verdict.FORWARD:
        output.say(click.style(_below(reason.sentence), dim=True))


def _below(text: str) -> str:
    """Under the first line of an event; broken between words, of which addresses are some."""
    indent = " " * 13
    return textwrap.fill(
        text,
        output.columns(),
        initial_indent=indent,
        subsequent_indent=indent,
        break_long_words=False,
        break_on_hyphens=False,
    )


def _talk(event: "Event") -> str:
    if event.destination is None:
        return event.protocol if event.packet else "-"
    asked = format_endpoint(event.destination, event.destination_port)
    if event.source is None:
        return f"{event.protocol} this node -> {asked}"
    return f"{event.protocol} {format_endpoint(event.source, event.source_port)} -> {asked}"


def _where(event: "Event") -> str:
    place = "at a socket" if not event.ifindex else f"on {_interface(event)} ({event.place.value})"
    return f"{event.service}, {place}" if event.service else place


def _interface(event: "Event") -> str:
    from ebpf_lb.datapath.reader.node import interface_name

    return interface_name(event.ifindex) or f"interface {event.ifindex}"


def _comment(event: "Event") -> str:
    service = f" Service {event.service}." if event.service else ""
    return f"{event.reason.verdict}: {event.reason.name}: {event.reason.sentence}.{service}"


def _row(event: "Event", since_ns: int) -> dict[str, Any]:
    return {
        "schemaVersion": output.SCHEMA_VERSION,
        "time": datetime.fromtimestamp((event.time_ns + since_ns) / 1e9).astimezone().isoformat(),
        "family": event.family.directory,
        "verdict": event.reason.verdict.value,
        "reason": event.reason.name,
        "sentence": event.reason.sentence,
        "service": event.service,
        "protocol": event.protocol,
        "source": format_address(event.source) if event.source else None,
        "sourcePort": event.source_port or None,
        "destination": format_address(event.destination) if event.destination else None,
        "destinationPort": event.destination_port or None,
        "backend": format_endpoint(event.backend, event.backend_port) if event.backend else None,
        "place": event.place.value,
        "interface": _interface(event) if event.ifindex else None,
        "bytes": event.packet_bytes or None,
    }

"""One real request of a click: captured, its way told as data for the page and as a drawing."""

import ipaddress
import textwrap
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

from ebpf_lb.lab.cluster import Lab
from ebpf_lb.lessons.scenarios import hooks, record, svg, way, words
from ebpf_lb.lessons.scenarios.catalog import Scenario
from ebpf_lb.lessons.scenarios.frames import Endpoint
from ebpf_lb.lessons.scenarios.way import Change, Story, Way
from ebpf_lb.lessons.web.actions import BadRequestError, number, word
from ebpf_lb.lessons.web.scene import REQUEST_PROTOCOLS

Json = dict[str, Any]
_TEXT_MAX = 60


def send(lab: Lab, asked: Json) -> Json:
    """Sends the request and tells what every machine saw. Raises UserError."""
    question = read(asked)
    lab.place(question.client)  # says who is not there
    service = word(asked, "service")
    with _sent_to(lab, question.asked.address, asked.get("by")):
        story = way.tell(record.record(lab, question, look_inside=True))
    return tell(story, service)


@contextmanager
def _sent_to(lab: Lab, address: str, node: str | None) -> Iterator[None]:
    """The router sends what is for an external address to this node meanwhile."""
    if not node:
        yield
        return
    before = lab.routes().get(address, {"pinned": False})
    lab.route(address, node)
    try:
        yield
    finally:
        lab.route(address, before["nodes"][0] if before["pinned"] else None)


def read(asked: Json) -> record.Question:
    protocol = word(asked, "protocol")
    if protocol not in REQUEST_PROTOCOLS:
        raise BadRequestError(f"protocol must be one of {', '.join(REQUEST_PROTOCOLS)}")
    try:
        address = str(ipaddress.ip_address(word(asked, "address")))
    except ValueError:
        raise BadRequestError("address must be an IP address") from None
    target = Endpoint(address, number(asked, "port", 65535))
    return record.Question(word(asked, "client"), target, protocol, "hostname")


def tell(story: Story, service: str) -> Json:
    # one that answers with a page has more to say than there is room for
    text = textwrap.shorten(story.connection.text, _TEXT_MAX, placeholder=" …")
    connection = replace(story.connection, text=text)
    story = replace(story, connection=connection)
    title = f"{connection.machine} asks {service}"
    # the drawing knows lessons, of which it needs the titles
    headings = Scenario(
        "request", title, "", connection.machine, service, "clusterIP", connection.outcome
    )
    return {
        "title": title,
        "client": connection.machine,
        "asked": str(connection.asked),
        "outcome": words.outcome(story),
        "answered": connection.outcome == "answered",
        "backend": story.backend,
        "ways": [_way(story, each) for each in (story.first, story.answer) if each],
        "remarks": words.remarks(story),
        "drawing": svg.render(headings, story),
    }


def _way(story: Story, told: Way) -> Json:
    return {
        "towards": told.towards_service,
        "heading": words.heading(told),
        "end": words.end(story, told),
        "taps": [
            {
                "machine": tap.machine,
                "interface": words.interface(story, tap),
                "outgoing": tap.outgoing,
                "source": str(tap.packet.source),
                "destination": str(tap.packet.destination),
                "tunnel": str(tap.packet.tunnel or ""),
                "rewritings": [
                    _rewriting(told, change) | {"hook": hooks.hook(story, told, number, change)}
                    # in the order of the hooks: destinations where a packet comes in, then sources
                    for change in reversed(words.rewritings(story, told, number))
                ],
            }
            for number, tap in enumerate(told.taps)
        ],
    }


def _rewriting(told: Way, change: Change) -> Json:
    return {
        "name": words.translation(told, change),
        "field": change.field,
        "before": str(change.before),
        "after": str(change.after),
    }

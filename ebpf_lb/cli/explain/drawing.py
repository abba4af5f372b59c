"""The way of a connection's first packet and of its answer, drawn as lessons are."""

import ipaddress
from pathlib import Path
from typing import TYPE_CHECKING

from ebpf_lb.cli.explain.explanation import Explanation
from ebpf_lb.errors import UserError
from ebpf_lb.model.values import Protocol

if TYPE_CHECKING:
    from ebpf_lb.lessons.scenarios.frames import Endpoint, Packet
    from ebpf_lb.lessons.scenarios.recording import Machine
    from ebpf_lb.lessons.scenarios.way import Story, Way

_SYN, _RST, _ACK = 2, 4, 16
_SOURCE = "Drawn from what the node's maps, programs and routes say: no packet was sent."


def draw(found: Explanation, node: str) -> str:
    """As an SVG document. UserError where the lab's part is not installed."""
    try:
        from ebpf_lb.lessons.scenarios.svg import render
    except ImportError:
        raise UserError(
            "Drawings need the lab, which is not installed here: pip install 'ebpf-lb[lab]'."
        ) from None
    from ebpf_lb.lessons.scenarios.catalog import Scenario

    service = found.service or found.asked
    title = f"{found.kind} asks {service}: {found.verdict}"
    outcome = {"forward": "answered", "reject": "refused"}.get(found.verdict, "silent")
    scenario = Scenario(
        "explain", title[0].upper() + title[1:], "", "client", service.partition(":")[0],
        "clusterIP", outcome,
    )  # fmt: skip
    return render(scenario, _story(found, node), source=_SOURCE)


def draw_into(file: Path, found: Explanation, node: str) -> None:
    """As SVG, or as PNG if its name ends so. UserError likewise, and where nothing can be written
    there."""
    drawing = draw(found, node)
    from ebpf_lb.lessons.scenarios import png

    try:
        png.write(drawing, file)
    except OSError as error:
        raise UserError(f"{file} cannot be written: {error.strerror}.") from error


def _story(found: Explanation, node: str) -> "Story":
    """The client, this node, and the backend, each with what it sees of the packet."""
    from ebpf_lb.lessons.scenarios.recording import Connection, Machine
    from ebpf_lb.lessons.scenarios.way import Story

    asked = _endpoint(found.asked.rpartition("/")[0])
    own = "this node" in found.kind and "process" in found.kind
    # a process of the node has the address that the stack gives it on its way
    client = _endpoint((found.source if own else None) or found.client)
    here = Machine(node, "node", (client.address,) if own else ())
    asker = here if own else Machine(*_client_machine(found, node), node if _here(found) else "")
    machines = [asker] if own else [asker, here]
    if found.backend is not None:
        machines.append(_backend_machine(found, node))
    number = Protocol[found.asked.rpartition("/")[2]]
    connection = Connection(
        found.asked.rpartition("/")[2],
        asker.name,
        client.port or 0,
        asked,
        "",
        found.verdict,
        found.reason,
    )
    first = _there(found, machines, client, asked, number, own)
    answer = _back(found, machines, client, asked, number, own)
    ways = tuple(way for way in (first, answer) if way is not None)
    return Story(connection, tuple(machines), (), ways, first, answer)


def _here(found: Explanation) -> bool:
    return found.kind.endswith("of this node")


def _client_machine(found: Explanation, node: str) -> tuple[str, str, tuple[str, ...]]:
    address = (_endpoint(found.client).address,)
    if "pod" in found.kind:
        name = found.kind.removeprefix("pod ").partition(",")[0] if "/" in found.kind else "client"
        return name, "pod" if _here(found) else "client", address
    return "client", "client", address


def _backend_machine(found: Explanation, node: str) -> "Machine":
    from ebpf_lb.lessons.scenarios.recording import Machine

    assert found.backend is not None
    address = _endpoint(found.backend).address
    one = next((c for c in found.candidates if c.address == found.backend), None)
    name = one.pod if one and one.pod else address
    on = node if one and one.where == "here" else (one.node if one and one.node else "another node")
    return Machine(name, "pod", (address,), on)


def _there(
    found: Explanation,
    machines: "list[Machine]",
    client: "Endpoint",
    asked: "Endpoint",
    number: int,
    own: bool,
) -> "Way":
    from ebpf_lb.lessons.scenarios.way import Tap, Way

    asker, node = machines[0], machines[0] if own else machines[1]
    entry, leaving = _interfaces(found)
    sent = _packet(number, client, asked, _SYN)
    taps = []
    if not own:
        taps += [Tap(asker.name, "eth0", True, sent), Tap(node.name, entry, False, sent)]
    if found.backend is None:
        return Way(True, tuple(taps or [Tap(node.name, entry, True, sent)]))
    backend, source = _endpoint(found.backend), _seen(found, client)
    changed = _packet(number, source, backend, _SYN)
    taps += [
        Tap(node.name, leaving, True, changed),
        Tap(machines[-1].name, "eth0", False, changed),
    ]
    return Way(True, tuple(taps))


def _back(
    found: Explanation,
    machines: "list[Machine]",
    client: "Endpoint",
    asked: "Endpoint",
    number: int,
    own: bool,
) -> "Way | None":
    from ebpf_lb.lessons.scenarios.way import Tap, Way

    asker, node = machines[0], machines[0] if own else machines[1]
    entry, leaving = _interfaces(found)
    if found.backend is None:
        if found.verdict != "reject" or own:
            return None
        refusal = _packet(number, asked, client, _RST | _ACK)
        return Way(
            False,
            (Tap(node.name, entry, True, refusal), Tap(asker.name, "eth0", False, refusal)),
        )
    answered = _packet(number, _endpoint(found.backend), _seen(found, client), _SYN | _ACK)
    restored = _packet(number, asked, client, _SYN | _ACK)
    taps = [
        Tap(machines[-1].name, "eth0", True, answered),
        Tap(node.name, leaving, False, answered),
    ]
    if own:
        taps.append(Tap(node.name, "socket", False, restored))
    else:
        taps += [Tap(node.name, entry, True, restored), Tap(asker.name, "eth0", False, restored)]
    return Way(False, tuple(taps))


def _interfaces(found: Explanation) -> tuple[str, str]:
    """By which the client's packets come, and by which they go on."""
    entry = found.there[0].at.partition(",")[0] or "eth0"
    leaving = found.there[-1].at.partition(",")[0] or "eth0"
    return entry, leaving


def _seen(found: Explanation, client: "Endpoint") -> "Endpoint":
    from ebpf_lb.lessons.scenarios.frames import Endpoint

    try:
        source = _endpoint(found.source or "")
    except ValueError:
        source = Endpoint(found.source or client.address, client.port)
    return source


def _packet(number: int, source: "Endpoint", destination: "Endpoint", flags: int) -> "Packet":
    from ebpf_lb.lessons.scenarios.frames import Packet

    return Packet(number, source, destination, flags)


def _endpoint(text: str) -> "Endpoint":
    """ADDRESS:PORT."""
    from ebpf_lb.lessons.scenarios.frames import Endpoint

    host, _, port = text.rpartition(":")
    return Endpoint(str(ipaddress.ip_address(host.strip("[]"))), int(port))

"""Path-MTU discovery across nodes: what comes in by a wide link must leave by a narrower one, a
tunnel in one direction, a client's own link in the other. Nothing may be lost for good; what the
client said may be fragmented may not be lost at all."""

import json
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.lab.conftest import Room, room_in
from tests.lab.small_node import FLOOD, python
from tests.support import bulk
from tests.support.checker import SETTLED_S, Reaches, expect
from tests.support.manifests import deployment, service

FAMILIES = ("ipv4", "ipv6")
each_family = pytest.mark.parametrize("family", FAMILIES)
PORT, ANSWERS, NOBODYS = 31400, 31401, 31402
PODS = {"vxlan": 1430, "udp": 1472}  # beyond the tunnel, in both families
NARROW = 1400
# on a wire of its own between client and node2
WIRE = {"ipv4": ("198.51.100.1", "198.51.100.2"), "ipv6": ("2001:db8:51::1", "2001:db8:51::2")}


@pytest.fixture(scope="module", params=PODS)
def room(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Room]:
    """A tunnel between the nodes, with Ethernet frames and without; the pod is on node1, the client
    asks node2."""
    lab = request.getfixturevalue(f"{request.param}_lab")
    for room in room_in(lab, tmp_path_factory.mktemp("mtu")):
        web = service("web", protocols=("TCP", "UDP"), type="NodePort")
        for port in web["spec"]["ports"]:
            port["nodePort"] = PORT
        back = service("back", app="web", protocols=["UDP"], type="NodePort")
        back["spec"]["ports"][0] |= {"nodePort": ANSWERS, "targetPort": ANSWERS}
        empty = service("empty", protocols=["TCP"], type="NodePort")
        empty["spec"]["ports"][0] |= {"nodePort": NOBODYS}
        room.apply(deployment("web", node="node1"), web, back, empty)
        for family in FAMILIES:
            expect(lab, "client", at(node2(room, family)), Reaches(set(room.pods("web"))))
        yield room


def node2(room: Room, family: str) -> str:
    return next(a for a in room.lab.node("node2").addresses if (":" in a) == (family == "ipv6"))


def at(address: str, protocol: str = "tcp") -> str:
    return f"[{address}]:{PORT}/{protocol}" if ":" in address else f"{address}:{PORT}/{protocol}"


def run(room: Room, *words: object) -> Any:
    """What the traffic between the client and a node's port came to."""
    argv = [sys.executable, "-I", "-S", str(Path(bulk.__file__)), *map(str, words)]
    done = room.lab.exec("client", argv)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def forget_paths(room: Room) -> None:
    """What the client learned in an earlier test."""
    for family in ("-4", "-6"):
        room.lab.exec("client", ["ip", family, "route", "flush", "cache"], check=True)


def until_quick(room: Room, direction: str, address: str) -> list[dict[str, float]]:
    """5 MB each time, by a client that knows nothing of the path, until it takes less than 3 s.
    What is lost, for good or until a time-out, is so each time; a machine is not busy each time."""
    got: list[dict[str, float]] = []
    while not got or got[-1]["seconds"] >= 3:
        assert len(got) < 5, got
        forget_paths(room)
        got.append(run(room, direction, address, PORT, 5_000_000))
        assert got[-1]["bytes"] == 5_000_000
    return got


@pytest.mark.parametrize("size", [1380, 1400, 1420, 1430, 1452, 1472, 8000])
@each_family
def test_datagrams(room: Room, family: str, size: int) -> None:
    """Of the first one that is too big the client hears: by it it learns the path's MTU."""
    forget_paths(room)
    first, *others = run(room, "datagrams", node2(room, family), PORT, size, "discover")
    fits = size + 8 + (40 if family == "ipv6" else 20) <= PODS[room.lab.options.network]
    # what is bigger than the client's own link leaves it in fragments, in IPv4 without DF
    fragmented = family == "ipv4" and size > 1472
    assert first == ("answered" if fits or fragmented else "told")
    assert others == ["answered"] * 4


def not_refused(room: Room, family: str) -> int:
    """Packets that node2 would have refused, but for the limit."""
    command = ["ebpf-lb", "maps", "dump", "counters", "--family", family, "-o", "json"]
    dump = json.loads(room.lab.exec("node2", command, check=True).stdout)
    rows = dump[family]["counters"]
    return sum(int(row["packets"]) for row in rows if row["reason"] == "REJECT_LIMIT")


@each_family
def test_refusals_take_nothing_from_it(room: Room, family: str) -> None:
    """A client that is refused more often than the node refuses is still told of the path."""
    forget_paths(room)
    address = node2(room, family)
    before = not_refused(room, family)
    room.lab.exec("client", python(FLOOD, address, "4000", str(NOBODYS)), check=True)
    assert not_refused(room, family) > before
    first, *others = run(room, "datagrams", address, PORT, 1472, "discover")
    fits = 1472 + 8 + (40 if family == "ipv6" else 20) <= PODS[room.lab.options.network]
    assert first == ("answered" if fits else "told")
    assert others == ["answered"] * 4


@pytest.mark.parametrize("size", [1422, 1472, 4000, 8000])
def test_datagrams_that_may_be_fragmented(room: Room, size: int) -> None:
    """No loss at all, also of what comes in fragments already."""
    forget_paths(room)
    assert run(room, "datagrams", node2(room, "ipv4"), PORT, size, "fragment") == ["answered"] * 5


@each_family
def test_a_connection_towards_the_tunnel(room: Room, family: str) -> None:
    """The pod says that it takes segments of 1460 bytes; what lies between does not."""
    forget_paths(room)
    flag = "-6" if family == "ipv6" else "-4"
    listed = room.lab.exec(
        room.pod("web"), ["ip", "-j", flag, "route", "show", "default"], check=True
    ).stdout
    [default] = json.loads(listed)
    change = ["ip", flag, "route", "replace", "default", "via", default["gateway"], "dev"]
    change += [default["dev"], "advmss", "1440" if family == "ipv6" else "1460"]
    room.lab.exec(room.pod("web"), change, check=True)
    try:
        for got in until_quick(room, "upload", node2(room, family)):
            assert got["mss_said"] > got["mss_used"] >= 1280 - 60
    finally:
        room.lab.exec(room.pod("web"), change[:-2], check=True)


@pytest.fixture
def narrow_wire(room: Room) -> Iterator[Room]:
    """A link of the client's own to node2, whose node's end takes less than the client's."""
    lab = room.lab
    peer = lab.place("client").netns
    assert peer is not None

    def ip(host: str, words: str) -> None:
        lab.exec(host, ["ip", *words.split()], check=True)

    ip("node2", f"link add wan0 type veth peer name wan0 netns {peer}")
    try:
        for host, end in (("node2", 0), ("client", 1)):
            ip(host, f"addr add {WIRE['ipv4'][end]}/24 dev wan0")
            ip(host, f"addr add {WIRE['ipv6'][end]}/64 dev wan0 nodad")
            ip(host, "link set wan0 up")
        ip("node2", f"link set wan0 mtu {NARROW}")
        for family in FAMILIES:
            to = at(WIRE[family][0])
            expect(lab, "client", to, Reaches(set(room.pods("web"))))
        yield room
    finally:
        ip("node2", "link del wan0")


@each_family
def test_a_connection_towards_a_narrow_client(narrow_wire: Room, family: str) -> None:
    """The backend hears of it, across the tunnel, though it knows only the node."""
    until_quick(narrow_wire, "download", WIRE[family][0])


@pytest.mark.parametrize("size", [1300, 1380, 1420, 4000])
def test_answers_that_may_be_fragmented(narrow_wire: Room, size: int) -> None:
    """On their way to a narrow client: too big for its link, or also for the tunnel and in
    fragments already. No loss at all."""
    server = [sys.executable, "-I", "-S", bulk.__file__, "answer", str(ANSWERS)]
    running = narrow_wire.lab.popen(narrow_wire.pod("web"), server)
    try:
        deadline = time.monotonic() + SETTLED_S
        while run(narrow_wire, "fetch", WIRE["ipv4"][0], ANSWERS, 9) != ["answered"] * 5:
            assert time.monotonic() < deadline
        got = run(narrow_wire, "fetch", WIRE["ipv4"][0], ANSWERS, size)
    finally:
        running.kill()
        running.wait()
    assert got == ["answered"] * 5

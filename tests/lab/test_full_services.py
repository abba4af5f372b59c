"""A node that has less room for Services than before: established connections outlive its restart,
what fits is served, what does not is named and comes later."""

import json
from collections.abc import Iterator, Mapping
from typing import Any

import pytest

from ebpf_lb.lab.cluster import Lab
from tests.lab.conftest import Room
from tests.lab.small_node import (
    EBPF_LB,
    NODE,
    at,
    counted,
    holder,
    not_programmed,
    other_settings,
    python,
    reached,
    warned,
)
from tests.lab.test_outside import CLIENT, until
from tests.support.checker import Reaches, Refused, SticksToOneOf, expect, probe
from tests.support.manifests import Manifest, cluster_ip, deployment, service

SERVICES, BACKENDS, SLOTS, AFFINITY = 24, 64, 64, 32
SMALL = {
    "EBPF_LB_SERVICES": str(SERVICES),
    "EBPF_LB_BACKENDS": str(BACKENDS),
    "EBPF_LB_SLOTS": str(SLOTS),
    "EBPF_LB_AFFINITY": str(AFFINITY),
    "EBPF_LB_NAMESPACE_SHARE": "100",  # all of them are in one
}
PODS, HELD = 3, 15
NUMBER, WIDE, FAT, LARGE, STICKY, FIRST = 110, 111, 112, 113, 114, 120
STICKY_PORT = 31414
FAMILIES = ("ipv4", "ipv6")
each_family = pytest.mark.parametrize("family", FAMILIES)

# Of the client's, behind its router: one TCP connection from each to a node port, held. For each
# line of input: who answers by it now, and by another one: [[held, new], …]
CLIENTS = {"ipv4": "198.51.100.{}", "ipv6": "2001:db8:ff::{}"}
CROWD = """
import json, socket, sys
target, port, *addresses = sys.argv[1:]
def opened(address):
    one = socket.create_connection((target, int(port)), 20, (address, 0))
    return one
def ask(one):
    one.sendall(b"GET /hostname HTTP/1.1\\r\\nHost: x\\r\\n\\r\\n")
    return one.recv(4096).decode().split()[-1]
held = [opened(address) for address in addresses]
for line in sys.stdin:
    found = []
    for address, one in zip(addresses, held):
        with opened(address) as other:
            found.append([ask(one), ask(other)])
    print(json.dumps(found), flush=True)
"""


@pytest.fixture(scope="module")
def web(lab: Lab, shared_room: Room) -> Iterator[Room]:
    """A client on the node, a Service whose pods run there, and connections to it that are held
    over both restarts: when there comes to be less room, and when there is more again."""
    room = shared_room
    room.apply(
        deployment("client", node=NODE),
        deployment("web", replicas=PODS, node=NODE),
        service("web", number=NUMBER, protocols=("TCP", "UDP")),
    )
    for family in FAMILIES:
        reached(room, NUMBER, family)
    with (
        holder(room, cluster_ip(NUMBER, "ipv4")) as four,
        holder(room, cluster_ip(NUMBER, "ipv6")) as six,
    ):
        for one in (four, six):
            assert one.hold(HELD) == [HELD, 0, HELD]
        with other_settings(lab, SMALL):
            for one in (four, six):
                assert one.hold(HELD) == [0, 0, HELD], "lost by the restart with less room"
            for family in FAMILIES:
                reached(room, NUMBER, family)
            yield room
            for one in (four, six):
                assert one.hold(HELD) == [0, 0, HELD], "lost while maps were full"
        for one in (four, six):
            assert one.hold(HELD) == [0, 0, HELD], "lost by the restart with more room"


def by_hand(name: str, number: int, **spec: Any) -> Manifest:
    """A Service whose slices are written by hand."""
    made = service(name, number=number, protocols=("TCP",), **spec)
    made["spec"]["ports"][0]["name"] = "http"
    del made["spec"]["selector"]
    return made


def slices(room: Room, name: str, pods: int, others: int) -> list[Manifest]:
    """So many of the web pods, and others that are nobody's, all said to be on the node."""
    found = []
    for family in FAMILIES:
        addresses = [
            next(a for a in pod.addresses if (":" in a) == (family == "ipv6"))
            for _, pod in sorted(room.pods("web").items())
        ][:pods]
        nobody = "10.244.250.{}" if family == "ipv4" else "fd00:10:244:fa::{}"
        addresses += [nobody.format(number) for number in range(1, others + 1)]
        found.append({
            "apiVersion": "discovery.k8s.io/v1",
            "kind": "EndpointSlice",
            "metadata": {
                "name": f"{name}-{family}", "labels": {"kubernetes.io/service-name": name}
            },
            "addressType": {"ipv4": "IPv4", "ipv6": "IPv6"}[family],
            "ports": [{"name": "http", "protocol": "TCP", "port": 80}],
            "endpoints": [{"addresses": [a], "nodeName": NODE} for a in addresses],
        })  # fmt: skip
    return found


def is_reported(room: Room, names: set[str], full: str) -> Mapping[str, list[str]]:
    """By the status page, Events, metric and log."""
    until(lambda: set(not_programmed(room)) >= names, f"/status does not name {names}")
    said = not_programmed(room)
    until(lambda: warned(room, f"{full} is full") >= names, f"not all have Events: {said}")
    said = {name: sentences for name, sentences in not_programmed(room).items() if name in names}
    for sentence in (each for sentences in said.values() for each in sentences):
        assert f"{full} is full" in sentence and f"dataPath.{full}" in sentence
    assert counted(room.lab, "ebpf_lb_not_programmed") >= len(names)
    lines = room.lab.log(f"agent-{NODE}").read_text().splitlines()
    logged = [one for one in map(json.loads, lines) if one["event"] == "not programmed"]
    services = {one["service"] for one in logged if f"{full} is full" in one["error"]}
    assert {f"{room.namespace}/{name}" for name in names} <= services
    return said


def is_repaired(room: Room) -> None:
    until(lambda: not not_programmed(room), "there is room, and it is not used")
    until(
        lambda: not counted(room.lab, "ebpf_lb_not_programmed"),
        "the metric still tells of something",
    )


def held(lab: Lab, family: str) -> list[str]:
    """Service ports in the node's maps: NAMESPACE/NAME:PORT."""
    dump = [*EBPF_LB, "maps", "dump", "names", "--family", family, "-o", "json"]
    rows = json.loads(lab.exec(NODE, dump, check=True).stdout)[family]["names"]
    return [row["service"] for row in rows]


def delete(room: Room, *names: str) -> None:
    for name in names:
        room.lab.client.delete(f"/api/v1/namespaces/{room.namespace}/services/{name}")


def test_more_backends_than_fit(web: Room) -> None:
    """The Service goes on with those that it had, old connections and new ones."""
    web.apply(by_hand("wide", WIDE), *slices(web, "wide", 2, 0))
    two = set(sorted(web.pods("web"))[:2])
    source = web.pod("client")
    for family in FAMILIES:
        expect(web.lab, source, at(WIDE, family), Reaches(two))
    with (
        holder(web, cluster_ip(WIDE, "ipv4")) as four,
        holder(web, cluster_ip(WIDE, "ipv6")) as six,
    ):
        for one in (four, six):
            assert one.hold(HELD) == [HELD, 0, HELD]
        web.apply(*slices(web, "wide", PODS, BACKENDS))
        is_reported(web, {"wide"}, "backends")
        for family in FAMILIES:
            expect(web.lab, source, at(WIDE, family), Reaches(two))
        # nobody else is held back
        web.apply(service("small", app="web", number=FIRST, protocols=("TCP",)))
        for family in FAMILIES:
            reached(web, FIRST, family)
        web.apply(*slices(web, "wide", PODS, 0))
        is_repaired(web)
        for family in FAMILIES:
            reached(web, WIDE, family)
        for one in (four, six):
            assert one.hold(HELD) == [0, 0, HELD]
    delete(web, "wide", "small")


def test_more_slots_than_fit(web: Room) -> None:
    """Both sets of one have room only when another Service is gone. Until then what was there goes
    on: it had no endpoints, so clients are refused, and counted."""
    # of two that were made within one second, the first by name is due earlier
    web.apply(by_hand("fat", FAT), *slices(web, "fat", PODS, 21))
    local = {"internalTrafficPolicy": "Local", "type": "NodePort"}
    web.apply(by_hand("large", LARGE, **local))
    source = web.pod("client")
    for family in FAMILIES:
        expect(web.lab, source, at(LARGE, family), Refused())
    web.apply(*slices(web, "large", PODS, 17))
    is_reported(web, {"large"}, "slots")
    for family in FAMILIES:
        refused = {"reason": "NO_ENDPOINTS"}
        before = counted(web.lab, "ebpf_lb_packets_total", family, **refused)
        expect(web.lab, source, at(LARGE, family), Refused(tries=5), within_s=0)
        assert counted(web.lab, "ebpf_lb_packets_total", family, **refused) >= before + 5
    delete(web, "fat")
    is_repaired(web)
    for family in FAMILIES:
        # three of twenty answer
        def answered(to: str = at(LARGE, family)) -> set[str]:
            answers = probe(web.lab, source, to, tries=100, timeout_s=0.3)
            return {a.text for a in answers if a.outcome == "answered"}

        assert until(answered, "nobody answers") <= set(web.pods("web"))
    delete(web, "large")


def test_more_clients_than_affinity_remembers(web: Room) -> None:
    """Nobody is refused: who was longest away is forgotten, and his connections live on."""
    sticky = service(
        "sticky", app="web", number=STICKY, protocols=("TCP",),
        type="NodePort", sessionAffinity="ClientIP",
    )  # fmt: skip
    sticky["spec"]["ports"][0]["nodePort"] = STICKY_PORT
    web.apply(sticky)
    names = set(web.pods("web"))
    for family in FAMILIES:
        six = family == "ipv6"
        [node] = [a for a in web.lab.node(NODE).addresses if (":" in a) == six]
        crowd = [CLIENTS[family].format(number) for number in range(101, 101 + 3 * AFFINITY)]
        flag, bits = ("-6", 128) if six else ("-4", 32)
        network = CLIENTS[family].format(0) + ("/64" if six else "/24")
        lines = "".join(f"addr add {each}/{bits} dev lo\n" for each in crowd)
        web.lab.exec("client", ["ip", "-batch", "-"], input=lines, check=True)
        route = ["ip", flag, "route", "replace", network, "via", CLIENT[family]]
        web.lab.exec("router", route, check=True)
        try:
            to = f"[{node}]:{STICKY_PORT}/tcp" if six else f"{node}:{STICKY_PORT}/tcp"
            expect(web.lab, "client", to, SticksToOneOf(names))
            done = web.lab.exec(
                "client", python(CROWD, node, str(STICKY_PORT), *crowd), input="\n\n", check=True
            )
            first, second = map(json.loads, done.stdout.splitlines())
            assert {name for pair in (*first, *second) for name in pair} == names
            # by connections that stood before there was no room any more
            assert [held for held, _ in first] == [held for held, _ in second]
            held = counted(web.lab, "ebpf_lb_map_entries", family, map="affinity")
            room = counted(web.lab, "ebpf_lb_map_capacity", family, map="affinity")
            assert AFFINITY // 2 <= held <= room == AFFINITY
        finally:
            web.lab.exec("router", ["ip", flag, "route", "del", network], check=True)
            lines = "".join(f"addr del {each}/{bits} dev lo\n" for each in crowd)
            web.lab.exec("client", ["ip", "-batch", "-"], input=lines, check=True)
    delete(web, "sticky")


def test_services_that_do_not_fit_are_named_and_come_later(web: Room) -> None:
    names = {f"s{number}": number for number in range(FIRST, FIRST + SERVICES)}
    room, lab = web, web.lab
    room.apply(deployment("one", node=NODE))
    # ids of Services that are deleted come free later; then there is no other room than now
    for family in FAMILIES:
        until(
            lambda f=family: (
                counted(lab, "ebpf_lb_map_entries", f, map="services") == len(held(lab, f))
            ),
            "ids of deleted Services do not come free",
        )
    room.apply(*(service(n, app="one", number=i, protocols=("TCP",)) for n, i in names.items()))

    def all_are_tried() -> bool:
        left = names.keys() - not_programmed(room).keys()
        here = {f"{room.namespace}/{name}:tcp" for name in left}
        return left < names.keys() and all(here <= {*held(lab, f)} for f in FAMILIES)

    until(all_are_tried, "some are neither programmed nor reported, or all are programmed")
    outside = is_reported(room, set(not_programmed(room)), "services")
    assert outside.keys() < names.keys()
    for name, number in names.items():
        if name not in outside:
            for family in FAMILIES:
                reached(room, number, family, app="one")
    for lost in outside:
        answers = [probe(lab, room.pod("client"), at(names[lost], f))[0] for f in FAMILIES]
        assert any(answer.outcome != "answered" for answer in answers), lost
    # other nodes have room for all
    for number in names.values():
        expect(lab, "node1", at(number, "ipv4"), Reaches(set(room.pods("one"))), tries=1)

    inside = [name for name in names if name not in outside]
    for name in inside[: len(outside)]:
        lab.client.delete(f"/api/v1/namespaces/{room.namespace}/services/{name}")
    is_repaired(room)
    for name in [*outside, *inside[len(outside) :]]:
        for family in FAMILIES:
            reached(room, names[name], family, app="one")
    delete(room, *outside, *inside[len(outside) :])

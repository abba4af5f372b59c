"""Broken clusters: each gives up its cause to one command, the one that the runbook has for it."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from ebpf_lb.lab.objects.pod_life import PodLife
from tests.lab.conftest import EBPF_LB, Room
from tests.support import runbook
from tests.support.checker import SETTLED_S
from tests.support.manifests import Manifest, pod, service

NODE = "node1"
SECTIONS = runbook.sections()
TCP = ["TCP"]
ELSEWHERE = "New connections time out while old ones go on"
"""It is tried where a node has small tables anyway: test_full_tables.py."""


def typo() -> list[Manifest]:
    """A Service whose EndpointSlice names an address that nobody has."""
    made = service("typo", protocols=TCP)
    del made["spec"]["selector"]
    return [
        made,
        {
            "apiVersion": "discovery.k8s.io/v1",
            "kind": "EndpointSlice",
            "metadata": {"name": "typo-1", "labels": {"kubernetes.io/service-name": "typo"}},
            "addressType": "IPv4",
            "ports": [{"name": "tcp", "protocol": "TCP", "port": 80}],
            "endpoints": [{"addresses": ["10.244.2.250"]}],
        },
    ]


@pytest.fixture(scope="module")
def shop(shared_room: Room) -> Room:
    balanced: dict[str, Any] = {"protocols": TCP, "type": "LoadBalancer"}
    shared_room.apply(
        pod("client", "client", node=NODE),
        *(pod(f"web-{number}", "web", node=f"node{number}") for number in (1, 2, 3)),
        pod("far", "far", node="node2"),
        pod("starting", "starting", node="node2"),
        service("web", protocols=TCP),
        service("wrong-port", app="web", target_port=9999, protocols=TCP),
        service("far", externalTrafficPolicy="Local", **balanced),
        service("private", app="web", loadBalancerSourceRanges=["10.0.0.0/8"], **balanced),
        service("starting", protocols=TCP),
        *typo(),
    )
    PodLife(shared_room.lab.client, shared_room.namespace, "starting").set_ready(False)
    return shared_room


@contextmanager
def done_and_undone(room: Room, node: str, do: str, undo: str) -> Iterator[None]:
    room.lab.exec(node, ["sh", "-ec", do], check=True)
    try:
        yield
    finally:
        room.lab.exec(node, ["sh", "-ec", undo], check=True)


def address(room: Room, name: str) -> str:
    return next(one for one in room.pods(name)[name].addresses if ":" not in one)


def wall(room: Room, node: str, rule: str) -> Any:
    """A host firewall with one rule."""
    chain = "{ type filter hook forward priority 0; }"
    do = (
        f"nft add table inet wall; nft 'add chain inet wall forward {chain}'; "
        f"nft add rule inet wall forward {rule}"
    )
    return done_and_undone(room, node, do, "nft delete table inet wall")


def blackhole(room: Room) -> Any:
    network = f"{address(room, 'web-2')}/32"
    return done_and_undone(
        room, NODE, f"ip route add blackhole {network}", f"ip route del blackhole {network}"
    )


def narrow(room: Room) -> Any:
    """node2 takes no frames as large as the others send, and nobody hears of it."""
    return done_and_undone(room, "node2", "ip link set eth0 mtu 1400", "ip link set eth0 mtu 1500")


@contextmanager
def no_agent(room: Room) -> Iterator[None]:
    room.lab.stop_agent(NODE)
    try:
        yield
    finally:
        room.lab.start_agent(NODE)


@contextmanager
def as_it_is(room: Room) -> Iterator[None]:
    yield


BROKEN: dict[str, Callable[[Room], Any]] = {
    "Every connection is refused at once": as_it_is,
    "Connections are refused although the Pods are ready": as_it_is,
    "A load balancer's address works by some nodes only": as_it_is,
    "A load balancer's address is silent for some clients": as_it_is,
    "Some connections time out: an address that nobody has": as_it_is,
    "Some connections time out: a filter on this node": (
        lambda room: wall(room, NODE, f"ip daddr {address(room, 'web-3')} drop")
    ),
    "Some connections time out: a filter on another node": (
        lambda room: wall(room, "node3", f"ip daddr {address(room, 'web-3')} drop")
    ),
    "Some connections time out: a route that leads nowhere": blackhole,
    "Small answers arrive, large ones hang": narrow,
    "New Pods get no connections, old ones still do": no_agent,
}


def test_every_section_is_tried() -> None:
    assert set(SECTIONS) == {*BROKEN, ELSEWHERE}


@pytest.mark.parametrize("title", BROKEN)
def test_one_command_names_the_cause(shop: Room, title: str) -> None:
    section = SECTIONS[title]
    _, *words = section.words(shop.namespace)
    with BROKEN[title](shop):
        deadline = time.monotonic() + SETTLED_S
        while True:
            done = shop.lab.exec(NODE, [str(EBPF_LB), *words])
            missing = section.missing(done.stdout, shop.namespace)
            if not missing:
                return
            assert time.monotonic() < deadline, (missing, done.stdout, done.stderr)
            time.sleep(0.5)


def test_a_cluster_that_is_well_has_no_trouble(shop: Room) -> None:
    for source in (f"{shop.namespace}/client", "node", "198.51.100.9"):
        words = [str(EBPF_LB), "explain", source, f"{shop.namespace}/web"]
        done = shop.lab.exec(NODE, words)
        assert done.returncode == 0, done.stderr
        assert "Trouble:" not in done.stdout, done.stdout

"""Neighbours that the stack sends nothing to, on a wire between two namespaces."""

import json
import os
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from ebpf_lb.agent.upkeep.neighbours import Neighbours
from ebpf_lb.lab import namespaces, topology
from tests.capabilities import NETNS, ROOT, needs

pytestmark = needs(ROOT, NETNS)

HERE, THERE = (f"eblb-neigh-{os.getpid()}-{side}" for side in ("here", "there"))
ADDRESSES = {"ipv4": "192.0.2.2", "ipv6": "2001:db8::2"}
OLD = "02:00:00:00:00:02"
each_family = pytest.mark.parametrize("family", ADDRESSES)


def ip(namespace: str, words: str) -> str:
    done = subprocess.run(
        ["ip", "-n", namespace, *words.split()], check=True, capture_output=True, text=True
    )
    return done.stdout


@pytest.fixture
def wire() -> Iterator[int]:
    """This thread is at one end, whose ifindex it gets."""
    paths = [Path("/run/netns") / name for name in (HERE, THERE)]
    for path in paths:
        topology.make_namespace(path)
    try:
        with namespaces.entered(paths[0]):
            ip(HERE, f"link add n0 up type veth peer name n0 netns {THERE} address {OLD}")
            ip(THERE, "link set n0 up")
            for name, last in ((HERE, 1), (THERE, 2)):
                ip(name, f"addr add 192.0.2.{last}/24 dev n0")
                ip(name, f"addr add 2001:db8::{last}/64 dev n0 nodad")
            # seconds for which the kernel waits for a hint before it asks
            for version in ("ipv4", "ipv6"):
                namespaces.set_sysctls({f"net/{version}/neigh/n0/delay_first_probe_time": 1})
            yield socket.if_nametoindex("n0")
    finally:
        for path in paths:
            namespaces.remove(path)


def entry(family: str) -> tuple[str, str]:
    """State and MAC address."""
    shown = json.loads(ip(HERE, f"-j neigh show {ADDRESSES[family]} dev n0") or "[]")
    return (shown[0]["state"][0], shown[0].get("lladdr", "")) if shown else ("", "")


def until(wanted: Callable[[], bool], family: str) -> None:
    deadline = time.monotonic() + 60
    while not wanted():
        assert time.monotonic() < deadline, entry(family)
        time.sleep(0.1)


@each_family
def test_one_that_is_there_is_confirmed(wire: int, family: str) -> None:
    ip(HERE, f"neigh replace {ADDRESSES[family]} dev n0 lladdr {OLD} nud stale")
    time.sleep(2)
    assert entry(family) == ("STALE", OLD), "the kernel asks by itself"
    with Neighbours() as neighbours:
        assert neighbours.ask({wire}) >= 1
    until(lambda: entry(family) == ("REACHABLE", OLD), family)


@each_family
def test_one_whose_mac_address_changed_is_not_believed_any_longer(wire: int, family: str) -> None:
    ip(HERE, f"neigh replace {ADDRESSES[family]} dev n0 lladdr {OLD} nud stale")
    ip(THERE, "link set n0 address 02:00:00:00:00:77")
    with Neighbours() as neighbours:
        neighbours.ask({wire})
    until(lambda: entry(family)[0] in ("FAILED", "") or entry(family)[1] != OLD, family)


@pytest.mark.parametrize("state", ["permanent", "reachable"])
def test_what_needs_no_question_gets_none(wire: int, state: str) -> None:
    ip(HERE, f"neigh replace 192.0.2.2 dev n0 lladdr {OLD} nud {state}")
    with Neighbours() as neighbours:
        assert neighbours.ask({wire}) == 0
    assert entry("ipv4") == (state.upper(), OLD)


def test_other_interfaces_are_none_of_ours(wire: int) -> None:
    ip(HERE, f"neigh replace 192.0.2.2 dev n0 lladdr {OLD} nud stale")
    with Neighbours() as neighbours:
        assert neighbours.ask(set()) == 0
        assert neighbours.ask({wire + 1}) == 0
    assert entry("ipv4") == ("STALE", OLD)

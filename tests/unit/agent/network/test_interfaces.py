"""Links, addresses and default routes as the kernel tells of them, in a namespace of its own."""

import errno
import os
import queue
import socket
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from pyroute2 import IPRoute

from ebpf_lb.agent.network.interfaces import NodeNetwork
from ebpf_lb.agent.network.roles import Facts, Framing, Link
from ebpf_lb.lab import namespaces, topology
from ebpf_lb.model.values import Family, parse_address
from tests.capabilities import BPF, NETNS, ROOT, TUN, missing, needs
from tests.datapath.pinned import XDP, load_program

pytestmark = needs(ROOT, NETNS, BPF)

HERE, THERE = (f"eblb-links-{os.getpid()}-{side}" for side in ("here", "there"))


def ip(*words: str) -> None:
    """`ip` in the namespace that is looked at."""
    subprocess.run(["ip", "-n", HERE, *" ".join(words).split()], check=True)


@pytest.fixture
def network() -> Iterator[NodeNetwork]:
    """Looks at a namespace; pods' ends of pairs are in another."""
    for name in (HERE, THERE):
        topology.make_namespace(Path("/run/netns") / name)
    try:
        with namespaces.entered(Path("/run/netns") / HERE):
            made = NodeNetwork()
        yield made
        made.close()
    finally:
        for name in (HERE, THERE):
            subprocess.run(["ip", "netns", "del", name], check=True)


class Told:
    """What a network tells of itself, as it changes."""

    def __init__(self, network: NodeNetwork) -> None:
        self._facts: queue.Queue[Facts] = queue.Queue()
        with namespaces.entered(Path("/run/netns") / HERE):  # a thread is where its maker is
            network.follow(self._facts.put)

    def until(self, wanted: Callable[[Facts], Any]) -> Facts:
        """The first facts that are as wanted; queue.Empty if none come."""
        while True:
            facts = self._facts.get(timeout=60)
            if wanted(facts):
                return facts


def named(facts: Facts, name: str) -> Link | None:
    return next((link for link in facts.links.values() if link.name == name), None)


def test_a_pods_interface_comes_moves_and_goes(network: NodeNetwork) -> None:
    told = Told(network)
    ip(f"link add vetha type veth peer name eth0 netns {THERE}")
    link = named(told.until(lambda facts: named(facts, "vetha")), "vetha")
    assert link is not None
    assert (link.kind, link.master, link.peer_elsewhere) == ("veth", 0, True)

    ip("link add cni0 type bridge")
    ip("link set vetha master cni0")
    facts = told.until(lambda facts: getattr(named(facts, "vetha"), "master", 0))
    bridge = named(facts, "cni0")
    assert bridge is not None
    assert (bridge.kind, named(facts, "vetha")) == (
        "bridge",
        replace(link, master=bridge.index),
    )
    # the bridge says farewell to its port: the interface itself is still there
    ip("link set vetha nomaster")
    facts = told.until(lambda facts: getattr(named(facts, "vetha"), "master", 1) == 0)
    assert named(facts, "vetha") == link

    ip("link del vetha")
    told.until(lambda facts: not named(facts, "vetha"))


def test_mtu_and_xdp_programs_are_followed(network: NodeNetwork) -> None:
    told = Told(network)
    ip(f"link add eth0 mtu 1400 up type veth peer name eth0 netns {THERE}")
    link = named(told.until(lambda facts: named(facts, "eth0")), "eth0")
    assert link is not None
    assert (link.mtu, link.xdp) == (1400, ())
    ip("link set eth0 mtu 1300")
    told.until(lambda facts: getattr(named(facts, "eth0"), "mtu", 0) == 1300)
    with (
        load_program("xdp_any", 2, kind=XDP) as program,
        namespaces.entered(Path("/run/netns") / HERE),
    ):
        number = program.info().id
        attributes = [("IFLA_XDP_FD", program.fd), ("IFLA_XDP_FLAGS", 0)]
        with IPRoute() as here:
            here.link("set", index=link.index, xdp={"attrs": attributes})
    told.until(lambda facts: getattr(named(facts, "eth0"), "xdp", ()) == (number,))
    ip("link set eth0 xdp off")
    told.until(lambda facts: getattr(named(facts, "eth0"), "xdp", ()) == ())


@pytest.mark.skipif(bool(missing(TUN)), reason=missing(TUN))
def test_a_device_without_ethernet_header(network: NodeNetwork) -> None:
    told = Told(network)
    ip("tuntap add tun9 mode tun")
    link = named(told.until(lambda facts: named(facts, "tun9")), "tun9")
    assert link is not None
    assert (link.kind, link.framing, link.up) == ("tun", Framing.NONE, False)
    ip("link set tun9 up")
    told.until(lambda facts: getattr(named(facts, "tun9"), "up", False))
    ip("tuntap add tap9 mode tap")
    link = named(told.until(lambda facts: named(facts, "tap9")), "tap9")
    assert link is not None
    assert (link.kind, link.framing) == ("tun", Framing.ETHERNET)


def test_both_ends_here(network: NodeNetwork) -> None:
    told = Told(network)
    ip("link add vetha type veth peer name vethb")
    link = named(told.until(lambda facts: named(facts, "vetha")), "vetha")
    assert link is not None
    assert not link.peer_elsewhere


def test_addresses_and_default_routes(network: NodeNetwork) -> None:
    told = Told(network)
    ip("link add br0 type bridge")
    ip("addr add 192.0.2.1/24 dev br0")
    ip("addr add 2001:db8::1/64 dev br0 nodad")
    ip("link set br0 up")
    wanted = {parse_address("192.0.2.1"), parse_address("2001:db8::1")}
    facts = told.until(lambda facts: wanted <= {own.address for own in facts.addresses})
    link = named(facts, "br0")
    assert link is not None
    assert {own.scope for own in facts.addresses if own.address in wanted} == {0}

    ip("route add default via 192.0.2.254")
    ip("route add default via 192.0.2.253 metric 100")
    told.until(lambda facts: (Family.IPV4, link.index) in facts.default_routes)
    ip("-6 route add default via 2001:db8::fe")
    told.until(lambda facts: (Family.IPV6, link.index) in facts.default_routes)
    # one of two goes: there is still a way out
    ip("route del default via 192.0.2.254")
    ip("addr del 192.0.2.1/24 dev br0")  # and this takes the other
    facts = told.until(
        lambda facts: (
            (Family.IPV4, link.index) not in facts.default_routes
            and parse_address("192.0.2.1") not in _addresses(facts)
        )
    )
    assert (Family.IPV6, link.index) in facts.default_routes

    ip("link del br0")
    facts = told.until(lambda facts: not named(facts, "br0"))
    assert not facts.default_routes
    assert not [own for own in facts.addresses if own.index == link.index]


def test_lost_events_are_made_up_for(network: NodeNetwork, monkeypatch: pytest.MonkeyPatch) -> None:
    class Full:
        """A socket that overran: its events are gone."""

        def __init__(self, real: socket.socket) -> None:
            self._real, self._lost = real, False

        def recv(self, size: int, flags: int = 0) -> bytes:
            data = self._real.recv(size, flags)
            if not self._lost:
                self._lost = True
                raise OSError(errno.ENOBUFS, "No buffer space available")
            return data

        def close(self) -> None:
            self._real.close()

    monkeypatch.setattr(network, "_socket", Full(network._socket))
    told = Told(network)
    ip("link add br0 type bridge")
    told.until(lambda facts: named(facts, "br0"))


def _addresses(facts: Facts) -> set[bytes]:
    return {own.address for own in facts.addresses}

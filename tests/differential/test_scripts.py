"""One script for each kind of event. What a node's neighbours hear is the same with ebpf-lb and
with netfilter; and it is something, so that two nodes that do nothing would not do."""

from __future__ import annotations

from itertools import product

import pytest

from ebpf_lb.model.values import Family
from tests.capabilities import CGROUP2, DATAPATH, IPV6, NFTABLES, RAW_SOCKETS, needs
from tests.differential.compare import Peers
from tests.differential.play import COMPLAINTS
from tests.differential.script import (
    BACKEND,
    CLIENT,
    ENDS,
    NODE,
    SEGMENTS,
    Complain,
    Endpoints,
    Filter,
    Forge,
    Open,
    Say,
    Script,
    Sticky,
    Swap,
    data,
    farewell,
    handshake,
)  # fmt: skip

pytestmark = needs(*DATAPATH, CGROUP2, NFTABLES, IPV6, RAW_SOCKETS)

WAYS = ("clusterIP", "nodePort", "balancer", "externalIP")
NODE_PORT = 30080


def serve(pod: str, *services: str) -> Script:
    return tuple(Endpoints(service, (pod,)) for service in services or ("open",))


def connection(client: str, target: str, flow: int = 0, port: int = 0) -> Script:
    return (*handshake(client, target, flow, port), *data(flow))


def question(client: str, target: str, flow: int = 0, port: int = 0) -> Script:
    return (Open(client, target, "UDP", port), Say(flow, BACKEND), Say(flow, CLIENT))


def association(client: str, target: str, flow: int = 0, port: int = 0) -> Script:
    return (
        Open(client, target, "SCTP", port), Say(flow, BACKEND, "SYN-ACK"), Say(flow, CLIENT, "ACK"),
        Say(flow, BACKEND, "ACK"), Say(flow, CLIENT), Say(flow, BACKEND),
    )  # fmt: skip


SCRIPTS: dict[str, Script] = {
    **{
        f"{client} asks {pod}": (*serve(pod), *(
            step
            for flow, way in enumerate(WAYS)
            for step in (*connection(client, f"open {way}", flow), *farewell(flow))
        ))
        for client in ("pod1", "client1", "far1", NODE)
        for pod in ("pod1", "pod2", "far1", "host2")
    },
    **{
        f"datagrams of the node's, {'' if connected else 'not '}connected": tuple(
            step
            for number, (pod, way) in enumerate(product(("pod2", "far1", "host2"), WAYS))
            for step in (
                *serve(pod), Open(NODE, f"open {way}", "UDP", 0, connected), Say(number, BACKEND),
                Say(number, CLIENT), Say(number, BACKEND),
                *serve("pod1"), Say(number, CLIENT), Say(number, BACKEND),
            )
        )
        for connected in (True, False)
    },
    "the node itself, refused": (
        *(
            Open(NODE, target, protocol)
            for target in ("open clusterIP", "open otherPort", "open nodePort", "local balancer",
                           "inner clusterIP", "nobody clusterIP")
            for protocol in ("TCP", "UDP")
        ),
        *serve("far1", "local", "inner"),
        *(
            Open(NODE, target, protocol)
            for target in ("local clusterIP", "local nodePort", "local balancer",
                           "local externalIP", "inner clusterIP")
            for protocol in ("TCP", "UDP")
        ),
    ),
    "the node's own connections and their Services": (
        *serve("far1"), *connection(NODE, "open clusterIP"), *connection(NODE, "far1", 1),
        *serve("pod2"), *data(0), *data(1), *connection(NODE, "open nodePort", 2),
        Endpoints("open", ()), *data(0), *data(2), Forge(0, BACKEND, "RST"), *data(0),
        Complain(0, BACKEND, "host"), *data(0), *farewell(0), Say(2, BACKEND, "RST"),
        Say(2, CLIENT), Open(NODE, "open clusterIP"), *serve("host2"),
        Open(NODE, "open clusterIP"), Say(4, BACKEND, "RST"), *connection(NODE, "host2", 5),
        *connection("client1", "open nodePort", 6), Say(6, CLIENT, "RST"), *data(5),
        *question(NODE, "open clusterIP", 7), Complain(7, BACKEND), Say(7, CLIENT),
    ),
    "traffic policy Local": tuple(
        step
        for pod in ("pod2", "far1")
        for step in (
            *serve(pod, "local", "inner"),
            *(
                Open(client, target)
                for client in ("pod1", "client1", "client2", "far1")
                for target in (
                    "local clusterIP", "local nodePort", "local balancer", "local externalIP",
                    "inner clusterIP",
                )
            ),
        )
    ),
    "no endpoints": tuple(
        Open(client, target, protocol)
        for client in ("pod1", "client1", "far1")
        for target in ("open clusterIP", "open otherPort", "open nodePort", "local balancer",
                       "local nodePort", "inner clusterIP")
        for protocol in ("TCP", "UDP")
    ),
    "segments that open nothing": (
        *serve("far1"),
        *(
            step
            for number, segment in enumerate(SEGMENTS)
            for step in (Open("client1", "open otherPort"), Say(number, CLIENT, segment))
        ),
    ),
    "a backend that leaves": (
        *serve("pod2"), *connection("pod1", "open clusterIP"),
        *serve("far1"), *data(), *question("pod1", "open clusterIP", 1), *farewell(),
        *connection("pod1", "open clusterIP", 2),
    ),
    "all backends leave": (
        *serve("pod2"), *connection("client1", "open nodePort"),
        Open("client1", "open nodePort", "UDP", 30001), Say(1, BACKEND),
        Endpoints("open", ()), *data(0), Say(1, CLIENT), *serve("far1"), Say(1, CLIENT),
    ),
    "a UDP backend that leaves talks on": (
        *serve("far1"), *question("pod1", "open clusterIP", 0, 30001), *serve("far2"),
        Say(0, BACKEND), Complain(0, BACKEND), Say(0, CLIENT),
    ),
    "the last UDP backend talks on": (
        *serve("far1"), *question("pod1", "open clusterIP", 0, 30001), Endpoints("open", ()),
        Say(0, BACKEND), Complain(0, CLIENT), Say(0, CLIENT),
    ),
    "datagrams before there is a backend": (
        Open("pod1", "open clusterIP", "UDP", 30001), Say(0, CLIENT),
        *serve("far1"), Say(0, CLIENT), Say(0, BACKEND),
    ),
    "a UDP client with one port": (
        *serve("pod2"), *question("client1", "open nodePort", 0, 30001), *serve("far1"),
        Say(0, CLIENT), Say(0, BACKEND), *serve("far2"), Say(0, CLIENT), Say(0, BACKEND),
    ),
    "nodePorts are exchanged": (
        *serve("pod2", "open"), *serve("pod1", "local"),
        *connection("client1", "open nodePort", 0, 30001),
        *question("client1", "open nodePort", 1, 30001),
        Swap(), *data(0), Say(1, CLIENT), Say(1, BACKEND), Swap(), *data(0), Say(1, CLIENT),
    ),
    **{
        f"a forged {segment} of the {end}": tuple(
            step
            for flow, pod in enumerate(("pod2", "far1"))
            for step in (
                *serve(pod), *connection("client1", "open nodePort", flow),
                Forge(flow, end, segment), *data(flow), *data(flow), *serve("pod1"), *data(flow),
                *farewell(flow),
            )
        )
        for segment in SEGMENTS
        for end in ENDS
    },
    **{
        f"errors from the {end}{' by a router' if router else ''}": tuple(
            step
            for number, (about, pod) in enumerate(product(COMPLAINTS, ("pod2", "far1")))
            for step in (
                *serve(pod), *connection("client1", "open nodePort", 2 * number),
                Complain(2 * number, end, about, router),
                *question("pod1", "open clusterIP", 2 * number + 1),
                Complain(2 * number + 1, end, about, router),
                *data(2 * number), Say(2 * number + 1, CLIENT),
            )
        )
        for end in ENDS
        for router in (False, True)
    },
    "datagrams in fragments": tuple(
        step
        for number, (pod, client, target) in enumerate((
            ("pod2", "client1", "open nodePort"), ("far1", "client1", "open nodePort"),
            ("pod2", "pod1", "open clusterIP"), ("pod1", "pod1", "open clusterIP"),
        ))
        for step in (
            *serve(pod), *question(client, target, number),
            Say(number, CLIENT, "data", large=True), Say(number, BACKEND, "data", large=True),
        )
    ),
    "a Service and its backend from one port": tuple(
        step
        for number, protocol in enumerate(("TCP", "UDP"))
        for step in (
            *serve("far1"),
            Open("pod1", "open clusterIP", protocol, 30001), Say(2 * number, BACKEND, "SYN-ACK"),
            Open("pod1", "far1", protocol, 30001), Say(2 * number + 1, BACKEND, "SYN-ACK"),
            Say(2 * number, CLIENT), Say(2 * number + 1, CLIENT),
            Say(2 * number, BACKEND), Say(2 * number + 1, BACKEND),
        )
    ),
    "a backend and its Service from one port": tuple(
        step
        for number, protocol in enumerate(("TCP", "UDP"))
        for step in (
            *serve("far1"),
            Open("pod1", "far1", protocol, 30001), Say(2 * number, BACKEND, "SYN-ACK"),
            Open("pod1", "open clusterIP", protocol, 30001),
            Say(2 * number + 1, BACKEND, "SYN-ACK"),
            Say(2 * number, CLIENT), Say(2 * number + 1, CLIENT),
            Say(2 * number, BACKEND), Say(2 * number + 1, BACKEND),
        )
    ),
    "two clients of one port": (
        *serve("far1"), *connection("client1", "open nodePort", 0, 30001),
        *connection("client2", "open nodePort", 1, 30001),
        *question("client1", "open nodePort", 2, 30001),
        *question("client2", "open nodePort", 3, 30001), *data(0), *data(1), Say(2, BACKEND),
    ),
    "two Services, one backend, one port": (
        *serve("far1", "open", "local"), *connection("pod1", "open clusterIP", 0, 30001),
        *connection("pod1", "local clusterIP", 1, 30001), *data(0), *data(1),
        *question("pod1", "open clusterIP", 2, 30001),
        *question("pod1", "local clusterIP", 3, 30001), Say(2, BACKEND), Say(3, BACKEND),
    ),
    "the CNI's masquerading first": (
        *serve("host2"), *connection("pod1", "host2", 0, 30001),
        *connection("client1", "open nodePort", 1, 30001), *data(0), *data(1),
    ),
    "the CNI's masquerading second": (
        *serve("host2"), *connection("client1", "open nodePort", 0, 30001),
        *connection("pod1", "host2", 1, 30001), *data(0), *data(1),
    ),
    "answers to a port that is a nodePort": (
        *serve("far1"), *connection("pod1", "client2", 0, NODE_PORT),
        *question("pod1", "client2", 1, NODE_PORT), *question("pod1", "host2", 2, NODE_PORT),
        *data(0), Say(1, BACKEND), Say(2, BACKEND),
    ),
    "the node's filter": (
        *serve("far1"), *connection("client1", "open nodePort"), Filter("client1"), *data(0),
        Open("client1", "open nodePort"), Open("client1", "open clusterIP"),
        *serve("pod2"), Open("client1", "open nodePort"), Filter("client1"), *data(0),
        Filter("pod1"), Open("pod1", "open clusterIP"), Open("pod1", "open nodePort"),
    ),
    "SCTP": tuple(
        step
        for number, (client, target, pod) in enumerate(
            product(("pod1", "client1"), ("open clusterIP", "open nodePort"), ("pod2", "far1"))
        )
        for step in (*serve(pod), *association(client, target, number), *farewell(number))
    ),
    "SCTP: ends, and others": (
        Open("pod1", "open clusterIP", "SCTP"), Open("client1", "open nodePort", "SCTP"),
        *serve("far1"), *association("client1", "open nodePort", 2, 30001),
        *serve("pod2"), Say(2, CLIENT), Say(2, BACKEND), Say(2, BACKEND, "RST"),
        *association("client1", "open nodePort", 3, 30002), Say(3, CLIENT, "RST"),
        Open("client2", "open balancer", "SCTP", 30002), Say(4, CLIENT, "SYN"),
        Say(4, BACKEND, "SYN-ACK"), Complain(4, CLIENT, "host"), Complain(4, BACKEND, "time", True),
    ),
    "addresses of the service network that are nobody's": (
        *(
            Open(client, "nobody clusterIP", protocol)
            for client in ("pod1", "client1", "far1")
            for protocol in ("TCP", "UDP", "SCTP")
        ),
        *serve("far1"), Open("pod1", "open clusterIP"),
    ),
    "clients keep to their endpoints": (
        Sticky(), *serve("pod2"), *connection("client1", "open nodePort"),
        *question("pod1", "open clusterIP", 1), Endpoints("open", ("far1", "pod2")),
        *(
            step
            for number, way in enumerate((*WAYS, *WAYS))
            for step in connection("client1", f"open {way}", 2 + number)
        ),
        *question("pod1", "open externalIP", 10), *serve("far1"),
        Open("client1", "open balancer"), Open("pod1", "open clusterIP", "UDP"),
        Endpoints("open", ("pod2", "far1")), *connection("client1", "open nodePort", 13),
        Open("pod1", "open nodePort", "UDP"), Sticky(), *serve("pod2"),
        Open("client1", "open nodePort"), Open("pod1", "open clusterIP", "UDP"),
    ),
    "a tuple used again": (
        *serve("far1"), *connection("client1", "open nodePort", 0, 30001), *farewell(0),
        *serve("pod2"), *connection("client1", "open nodePort", 1, 30001),
        Say(1, CLIENT, "RST"), Open("client1", "open nodePort", "TCP", 30001),
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", SCRIPTS)
def test_neighbours_hear_the_same(peers: Peers, family: Family, name: str) -> None:
    found, heard = peers.compare(family, SCRIPTS[name])
    assert not found, f"\n{found}"
    assert heard

"""A node whose connection table is so small that it fills: what lives on, what fails, and that
there is room again later."""

import json
from collections.abc import Iterator
from typing import Any

import pytest

from ebpf_lb.lab.cluster import Lab
from tests.lab.conftest import Room
from tests.lab.small_node import (
    EBPF_LB,
    FLOOD,
    NODE,
    counted,
    holder,
    other_settings,
    python,
    reached,
)
from tests.lab.test_outside import until
from tests.support import runbook
from tests.support.manifests import cluster_ip, deployment, service

FLOWS = 128
SMALL = {
    "EBPF_LB_FLOWS": str(FLOWS),
    "EBPF_LB_UDP_S": "20",
    "EBPF_LB_UDP_NEW_S": "20",
    "EBPF_LB_TCP_SYN_S": "10",
    "EBPF_LB_CLOSING_S": "2",
    "EBPF_LB_TIME_WAIT_S": "2",
    "EBPF_LB_RESET_S": "2",
}
NUMBER = 60
each_family = pytest.mark.parametrize("family", ["ipv4", "ipv6"])

# Asks by UDP, from so many sockets.
SOCKETS = """
import socket, sys
for _ in range(int(sys.argv[2])):
    with socket.socket(
        socket.AF_INET6 if ":" in sys.argv[1] else socket.AF_INET, socket.SOCK_DGRAM
    ) as one:
        one.settimeout(10)
        one.connect((sys.argv[1], 80))
        one.send(b"hostname")
        one.recv(100)
"""


@pytest.fixture(scope="module")
def small(lab: Lab) -> Iterator[None]:
    """The node's agent has small tables meanwhile."""
    with other_settings(lab, SMALL):
        yield


@pytest.fixture(scope="module")
def web(small: None, shared_room: Room) -> Room:
    """A client on the node, and a Service whose pod is on another."""
    shared_room.apply(
        deployment("client", node=NODE),
        deployment("web", node="node1"),
        service("web", number=NUMBER, protocols=("TCP", "UDP")),
    )
    for family in ("ipv4", "ipv6"):
        reached(shared_room, NUMBER, family)
    return shared_room


def entries(lab: Lab, family: str) -> list[dict[str, Any]]:
    """The connection table, as it is right now."""
    command = [*EBPF_LB, "maps", "dump", "flows", "--family", family, "-o", "json"]
    dumped = json.loads(lab.exec(NODE, command, check=True).stdout)
    return list(dumped[family]["flows"])


def flows(lab: Lab, family: str) -> int:
    """How many entries there are, but for those of the node's own connections to a backend: its
    agent has some to the API server, and these are not idle."""
    return sum("HELD" not in each["flags"] for each in entries(lab, family))


def test_what_is_idle_goes_by_itself(web: Room) -> None:
    families = ("ipv4", "ipv6")
    for family in families:
        vip = cluster_ip(NUMBER, family)
        web.lab.exec(web.pod("client"), python(SOCKETS, vip, "50"), check=True)
        assert flows(web.lab, family) >= 50
    for family in families:
        until(lambda f=family: not flows(web.lab, f), "idle flows stay")
        until(
            lambda f=family: (
                counted(web.lab, "ebpf_lb_conntrack_entries", f) == len(entries(web.lab, f))
            ),
            "the metrics still tell of flows",
        )
        assert counted(web.lab, "ebpf_lb_conntrack_expired_total", family) >= 50


@each_family
def test_a_full_connection_table_costs_no_connection(web: Room, family: str) -> None:
    vip = cluster_ip(NUMBER, family)
    full = {"reason": "FLOW_TABLE_FULL"}
    with holder(web, vip) as held:
        assert held.hold(20) == [20, 0, 20]
        evicted = counted(web.lab, "ebpf_lb_conntrack_evictions_total", family)
        web.lab.exec(web.pod("client"), python(FLOOD, vip, "5000"), check=True)
        assert counted(web.lab, "ebpf_lb_conntrack_evictions_total", family) > evicted + FLOWS
        assert held.hold(20) == [0, 0, 20]
        # established ones to the last place: now others fail, and are counted
        refused = counted(web.lab, "ebpf_lb_packets_total", family, **full)
        opened, failed, answered = held.hold(2 * FLOWS, 3)
        assert failed == 3
        assert FLOWS // 2 < 20 + opened <= FLOWS
        assert answered == 20 + opened
        section = runbook.sections()["New connections time out while old ones go on"]
        said = web.lab.exec(NODE, [*EBPF_LB, *section.words("")[1:]]).stdout
        assert not section.missing(said, ""), said
        assert counted(web.lab, "ebpf_lb_packets_total", family, **full) >= refused + 3
    # and when they are closed there is room
    reached(web, NUMBER, family)

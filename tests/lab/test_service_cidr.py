"""Addresses of the ServiceCIDR that no Service has: silence, while others are answered."""

import json
import sys
import time
from collections.abc import Callable
from typing import Any

import pytest

from tests.lab.conftest import Room
from tests.support.checker import SETTLED_S, Dropped, Reaches, expect, probe
from tests.support.manifests import deployment, service

UNUSED = {"ipv4": "10.96.201.7", "ipv6": "fd00:10:96::c907"}
DUMP = [sys.executable, "-m", "ebpf_lb", "maps", "dump", "-o", "json"]
PATH = "/apis/networking.k8s.io/v1/servicecidrs"


def dump(room: Room, node: str, name: str) -> Any:
    return json.loads(room.lab.exec(node, [*DUMP, name], check=True).stdout)


def dropped(room: Room, node: str, family: str) -> int:
    rows = dump(room, node, "counters")[family]["counters"]
    return sum(row["packets"] for row in rows if row["reason"] == "NO_SERVICE")


def soon(check: Callable[[], None]) -> None:
    deadline = time.monotonic() + SETTLED_S
    while True:
        try:
            return check()
        except AssertionError:
            if time.monotonic() > deadline:
                raise
        time.sleep(0.05)


@pytest.mark.rule("VE-8")
@pytest.mark.parametrize("family", ["ipv4", "ipv6"])
def test_an_address_without_a_service(room: Room, family: str) -> None:
    room.apply(deployment("client", node="node1"), deployment("web", replicas=2))
    address = UNUSED[family]
    bracketed = f"[{address}]" if family == "ipv6" else address
    for source, node in ((room.pod("client"), "node1"), ("node2", "node2")):
        for protocol in ("tcp", "udp"):
            before = dropped(room, node, family)
            ask = {"timeout_s": 0.3}
            expect(room.lab, source, f"{bracketed}:80/{protocol}", Dropped(tries=2), **ask)
            assert dropped(room, node, family) > before
    own = {"clusterIP": address, "clusterIPs": [address], "ipFamilies": [f"IP{family[2:]}"]}
    own["ipFamilyPolicy"] = "SingleStack"
    room.apply(service("web", **own))
    for source in (room.pod("client"), "node2"):
        expect(room.lab, source, f"{bracketed}:80/tcp", Reaches(set(room.pods("web"))))


def test_a_cidr_that_comes_and_goes(room: Room) -> None:
    """Whoever adds addresses for Services later has them guarded, too."""
    cidr = {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "ServiceCIDR",
        "metadata": {"name": "more"},
        "spec": {"cidrs": ["198.18.0.0/16"]},
    }

    def known(expected: bool) -> None:
        networks = dump(room, "node3", "service_networks")["ipv4"]["service_networks"]
        assert ({"network": "198.18.0.0/16"} in networks) is expected

    def asked() -> int:
        """How many packets are dropped for it."""
        before = dropped(room, "node3", "ipv4")
        probe(room.lab, "node3", "198.18.7.7:80/tcp", timeout_s=0.3)
        return dropped(room, "node3", "ipv4") - before

    assert asked() == 0
    room.lab.client.create(PATH, cidr)
    try:
        soon(lambda: known(True))
        assert asked() > 0
    finally:
        room.lab.client.delete(f"{PATH}/more")
    soon(lambda: known(False))
    assert asked() == 0

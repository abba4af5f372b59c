"""ClientIP affinity: a client is the same by every address of a Service, as long as the time-out
says."""

import time
from collections.abc import Iterator

import pytest

from tests.lab.conftest import Room
from tests.lab.test_outside import balanced, each_family, given, nodes_of, target
from tests.support.checker import SticksToOneOf, expect, probe
from tests.support.manifests import Manifest, cluster_ip, deployment

NODE = "node1"  # every connection is translated here: each node has a memory of its own
NUMBER, BRIEF = 90, 91
NODE_PORTS = {"TCP": 31090, "UDP": 31091}
TIMEOUT_S = 2


def sticky(name: str, number: int, timeout_s: int) -> Manifest:
    made = balanced(
        name,
        app="web",
        number=number,
        sessionAffinity="ClientIP",
        sessionAffinityConfig={"clientIP": {"timeoutSeconds": timeout_s}},
    )
    if number == NUMBER:
        for port in made["spec"]["ports"]:
            port["nodePort"] = NODE_PORTS[port["protocol"]]
    return made


@pytest.fixture(scope="module")
def web(shared_room: Room) -> Iterator[Room]:
    """Six pods, and two clients on one."""
    shared_room.apply(
        deployment("client", node=NODE),
        deployment("other", node=NODE),
        deployment("web", replicas=6),
        sticky("web", NUMBER, 10800),
        sticky("brief", BRIEF, TIMEOUT_S),
    )
    addresses = given(shared_room, "web")
    for address in addresses:
        shared_room.lab.route(address, NODE)
        nodes_of(shared_room.lab, address, {NODE})
    yield shared_room
    for address in addresses:
        shared_room.lab.route(address, None)


@pytest.mark.rule("AF-1", "AF-6")
@each_family
@pytest.mark.parametrize("protocol", ["tcp", "udp"])
@pytest.mark.parametrize("client", ["pod", "another pod", "node", "outside"])
def test_one_pod_by_all_addresses(web: Room, client: str, protocol: str, family: str) -> None:
    source = {
        "pod": web.pod("client"), "another pod": web.pod("other"), "node": NODE, "outside": "client"
    }[client]  # fmt: skip
    [own] = [a for a in map(str, web.lab.node(NODE).addresses) if (":" in a) == (family == "ipv6")]
    [external] = [a for a in given(web, "web") if (":" in a) == (family == "ipv6")]
    targets = [
        target(own, NODE_PORTS[protocol.upper()], protocol),
        target(external, 80, protocol),
    ]
    if client != "outside":
        targets.append(target(cluster_ip(NUMBER, family), 80, protocol))
    pods = set(web.pods("web"))
    found = [expect(web.lab, source, each, SticksToOneOf(pods))[0].text for each in targets]
    for each in targets:  # and again, when all have been used
        found += [answer.text for answer in probe(web.lab, source, each, tries=3)]
    assert len(set(found)) == 1, dict(zip(targets, found, strict=False))


@pytest.mark.rule("AF-2")
@each_family
@pytest.mark.parametrize("client", ["pod", "node"])
def test_a_client_that_was_away_for_long_is_forgotten(web: Room, client: str, family: str) -> None:
    source = web.pod("client") if client == "pod" else NODE
    to = target(cluster_ip(BRIEF, family), 80, "tcp")
    pods = set(web.pods("web"))
    expect(web.lab, source, to, SticksToOneOf(pods))  # it is programmed
    seen: set[str] = set()
    # by chance all the same: once in 6**14
    for _ in range(15):
        [answer] = probe(web.lab, source, to)
        assert answer.text in pods
        seen.add(answer.text)
        if len(seen) > 1:
            return
        time.sleep(TIMEOUT_S + 1)
    raise AssertionError(f"always {seen}")

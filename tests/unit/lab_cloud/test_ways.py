"""Which nodes get what comes for an external address, and what is asked of them."""

import threading
from typing import Any

from ebpf_lb.lab.cloud.health import Health
from ebpf_lb.lab.cloud.ways import (
    EXCLUDED,
    Check,
    Target,
    Way,
    checks,
    own_addresses,
    targets,
    ways,
)

NODES = [Target(name, (f"172.30.0.{n}", f"fd30::{n}")) for n, name in enumerate("abc", start=1)]


def service(*addresses: str, health_port: int = 0, **spec: Any) -> dict[str, Any]:
    if health_port:
        spec |= {"externalTrafficPolicy": "Local", "healthCheckNodePort": health_port}
    return {
        "metadata": {},
        "spec": {"type": "LoadBalancer", **spec},
        "status": {"loadBalancer": {"ingress": [{"ip": address} for address in addresses]}},
    }


def node(name: str, ready: str = "True", **metadata: Any) -> dict[str, Any]:
    return {
        "metadata": {"name": name, **metadata},
        "status": {
            "addresses": [
                {"type": "InternalIP", "address": "172.30.0.1"},
                {"type": "Hostname", "address": name},
                {"type": "InternalIP", "address": "fd30::1"},
            ],
            "conditions": [{"type": "Ready", "status": ready}],
        },
    }


def test_only_ready_nodes_that_nobody_excluded() -> None:
    nodes = [
        node("late"),
        node("early"),
        node("unready", "False"),
        node("unknown", "Unknown"),
        node("excluded", labels={EXCLUDED: ""}),
        node("going", deletionTimestamp="2026-01-01T00:00:00Z"),
    ]
    found = targets(nodes)
    assert [target.name for target in found] == ["early", "late"]
    assert (found[0].address(4), found[0].address(6)) == ("172.30.0.1", "fd30::1")


def test_policy_cluster_uses_all_nodes() -> None:
    assert ways([service("172.29.0.1")], NODES, (), {}) == {"172.29.0.1": Way(("a", "b", "c"))}


def test_a_nodes_own_address_leads_to_that_node_whatever_services_have_it() -> None:
    own = own_addresses([node("unready", "False")])
    assert own == {"172.30.0.1", "fd30::1"}
    both = service("172.29.0.1", externalIPs=["172.30.0.1", "FD30::1"])
    assert ways([both], NODES, (), {}, own) == {"172.29.0.1": Way(("a", "b", "c"))}


def test_policy_local_uses_the_nodes_that_say_they_are_healthy() -> None:
    services = [service("172.29.0.1", health_port=31000), service("172.29.0.2", health_port=31001)]
    assert checks(services, NODES[:1]) == {
        Check("a", "172.30.0.1", 31000),
        Check("a", "172.30.0.1", 31001),
    }
    found = ways(services, NODES, {("b", 31000), ("gone", 31001)}, {})
    assert found == {"172.29.0.1": Way(("b",)), "172.29.0.2": Way(())}


def test_external_ips_have_no_health_check() -> None:
    local = service(type="ClusterIP", externalIPs=["198.51.100.1"], externalTrafficPolicy="Local")
    assert checks([local], NODES) == set()
    assert ways([local], NODES, (), {})["198.51.100.1"] == Way(("a", "b", "c"))


def test_a_shared_address_goes_where_all_its_services_are_served() -> None:
    services = [service("172.29.0.1"), service("172.29.0.1", health_port=31000)]
    assert ways(services, NODES, {("c", 31000)}, {}) == {"172.29.0.1": Way(("c",))}


def test_a_pin_counts_whoever_is_eligible_as_long_as_its_node_is_there() -> None:
    services, pins = [service("172.29.0.1", health_port=31000)], {"172.29.0.1": "b"}
    assert ways(services, NODES, (), pins) == {"172.29.0.1": Way(("b",), pinned=True)}
    assert ways(services, [NODES[0]], {("a", 31000)}, pins) == {"172.29.0.1": Way(("a",))}


def test_answers_count_at_once_and_silence_when_it_lasts() -> None:
    check = Check("a", "172.30.0.1", 31000)
    health = Health(lambda *_: None)
    health.take(check, True)
    assert health.healthy == {("a", 31000)}
    health.take(check, None)
    assert health.healthy == {("a", 31000)}
    health.take(check, None)
    assert health.healthy == set()
    health.take(check, True)
    health.take(check, False)
    assert health.healthy == set()


def test_what_nobody_asks_for_any_more_is_forgotten() -> None:
    answered = threading.Event()
    health = Health(lambda *_: answered.set())
    gone, asked = Check("a", "127.0.0.1", 1), Check("b", "127.0.0.1", 1)
    health.take(gone, True)
    health.poll({asked})
    assert health.healthy == set()
    assert answered.wait(60)

"""kubeproxy_network_programming_duration_seconds, as kube-proxy measures it."""

import pytest

from ebpf_lb.kube.resources import ENDPOINT_SLICES, ENDPOINTS
from ebpf_lb.kube.watch import Changed, Deleted, Listed
from ebpf_lb.model.endpoints import EndpointSlice
from ebpf_lb.model.key import ObjectKey
from tests.unit.agent.fakes import EPOCH_S, Agent
from tests.unit.agent.test_loop import WEB, lists, web
from tests.unit.plan.make import a_slice, endpoint

IPV4 = {"ip_family": "IPv4"}
NAME = "kubeproxy_network_programming_duration_seconds"


def slice_of(*where: str, name: str = "web-1") -> EndpointSlice:
    return a_slice(*map(endpoint, where), service=WEB, name=name)


def changed(agent: Agent, age_s: float, *where: str, name: str = "web-1") -> Changed:
    """A slice by a change that happened so long ago."""
    found = slice_of(*where, name=name)
    return Changed(ENDPOINT_SLICES, found, found.key, EPOCH_S + agent.clock.now - age_s)


def measured(agent: Agent) -> tuple[int, float]:
    """How many latencies, and their sum in seconds."""
    registry = agent.metrics.registry
    count, total = (registry.get_sample_value(f"{NAME}_{what}", IPV4) for what in ("count", "sum"))
    assert count is not None and total is not None
    return int(count), total


@pytest.fixture
def agent() -> Agent:
    made = Agent()
    made.tell(*lists(web(), slices=(slice_of("10.0.0.1"),)))
    made.second(100)
    return made


def test_from_the_change_to_the_maps(agent: Agent) -> None:
    assert measured(agent) == (0, 0)
    agent.tell(changed(agent, 2.0, "10.0.0.2"))  # `tell` lets half a second pass
    count, total = measured(agent)
    assert (count, round(total, 3)) == (1, 2.5)
    value = agent.metrics.registry.get_sample_value
    assert value(f"{NAME}_bucket", {"le": "2.0", **IPV4}) == 0
    assert value(f"{NAME}_bucket", {"le": "3.0", **IPV4}) == 1


def test_buckets_are_kube_proxys() -> None:
    (family,) = [f for f in Agent().metrics.registry.collect() if f.name == NAME]
    bounds = [
        s.labels["le"]
        for s in family.samples
        if s.name.endswith("_bucket") and s.labels["ip_family"] == "IPv4"
    ]
    assert len(bounds) == 2 + 59 + 12 + 7 + 1
    assert bounds[:4] == ["0.25", "0.5", "1.0", "2.0"]
    assert bounds[59:63] == ["58.0", "59.0", "60.0", "65.0"]
    assert bounds[-9:] == ["115.0", "120.0", "150.0", "180.0", "210.0", "240.0", "270.0", "300.0",
                           "+Inf"]  # fmt: skip


def test_every_change_counts_also_of_one_burst(agent: Agent) -> None:
    agent.tell(changed(agent, 2.0, "10.0.0.2"), changed(agent, 1.0, "10.0.0.3", name="web-2"))
    assert measured(agent)[0] == 2


def test_what_was_there_before_us_or_changes_nothing_does_not_count(agent: Agent) -> None:
    agent.tell(changed(agent, 1000, "10.0.0.2"))
    agent.tell(changed(agent, 1, "10.0.0.2"))
    found = slice_of("10.0.0.9")
    agent.tell(Changed(ENDPOINT_SLICES, found, found.key))
    assert measured(agent) == (0, 0)


def test_a_deletion_says_nothing(agent: Agent) -> None:
    gone = changed(agent, 1, "10.0.0.2")
    agent.tell(gone, Deleted(ENDPOINT_SLICES, gone.key))
    assert measured(agent) == (0, 0)


def test_a_relist_counts_what_it_brings(agent: Agent) -> None:
    now = EPOCH_S + agent.clock.now
    same, other = slice_of("10.0.0.1"), slice_of("10.0.0.2", name="web-2")
    agent.tell(Listed(ENDPOINT_SLICES, (same, other), (now - 1, now - 3)))
    count, total = measured(agent)
    assert (count, round(total, 3)) == (1, 3.5)


def test_endpoints_objects_count_too(agent: Agent) -> None:
    now = EPOCH_S + agent.clock.now
    agent.tell(Changed(ENDPOINTS, (slice_of("10.0.0.4"), slice_of("10.0.0.5", name="b")), WEB, now))
    agent.tell(Listed(ENDPOINTS, ((slice_of("10.0.0.6"),),), (now + 0.5,)))
    assert measured(agent)[0] == 2
    agent.tell(Changed(ENDPOINTS, (), ObjectKey("default", "other"), now))
    assert measured(agent)[0] == 2

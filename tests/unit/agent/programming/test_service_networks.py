"""ServiceCIDRs, from the API to the table; the fake one has room for two."""

import pytest

from ebpf_lb.kube.resources import SERVICE_CIDRS, SERVICES
from ebpf_lb.kube.watch import Changed, Deleted, Listed
from ebpf_lb.model.key import ObjectKey
from ebpf_lb.model.service_cidr import ServiceCIDR
from ebpf_lb.model.values import parse_network
from tests.unit.agent.fakes import Agent
from tests.unit.agent.test_loop import lists


def cidr(name: str, *networks: str) -> ServiceCIDR:
    return ServiceCIDR(ObjectKey("", name), tuple(map(parse_network, networks)))


def changed(name: str, *networks: str) -> Changed:
    return Changed(SERVICE_CIDRS, cidr(name, *networks), ObjectKey("", name))


def written(agent: Agent) -> list[str]:
    return [str(network) for network in agent.writer.service_networks]


@pytest.fixture
def agent() -> Agent:
    made = Agent()
    made.tell(Listed(SERVICE_CIDRS, (cidr("kubernetes", "10.96.0.0/12", "fd00:10:96::/108"),)))
    return made


def test_they_follow_when_services_are_known(agent: Agent) -> None:
    assert written(agent) == []
    agent.tell(*lists())
    assert written(agent) == ["10.96.0.0/12"]  # of the one family that the agent here serves
    agent.tell(changed("more", "172.20.0.0/16"))
    assert written(agent) == ["10.96.0.0/12", "172.20.0.0/16"]
    agent.tell(Deleted(SERVICE_CIDRS, ObjectKey("", "kubernetes")))
    assert written(agent) == ["172.20.0.0/16"]
    agent.tell(Listed(SERVICE_CIDRS, ()))
    assert written(agent) == []
    assert agent.loop.status()["serviceNetworkProblems"] == []


def test_the_agent_does_not_wait_for_them() -> None:
    agent = Agent()
    agent.writer.service_networks = (parse_network("10.96.0.0/12"),)  # of an earlier run
    agent.tell(*lists())
    assert agent.loop.complete
    assert written(agent) == ["10.96.0.0/12"]
    agent.tell(Listed(SERVICE_CIDRS, ()))  # the server has none of the kind
    assert written(agent) == []


def test_nothing_is_written_twice(agent: Agent) -> None:
    agent.tell(*lists())
    writes = agent.programmer.writes
    agent.tell(changed("kubernetes", "10.96.0.0/12"), Listed(SERVICES, ()))
    assert agent.writer.stats["service_networks"] == 1
    assert agent.programmer.writes == writes


@pytest.mark.parametrize(
    ("network", "other"),
    [("172.16.0.0/12", "172.30.0.11/32"), ("10.244.1.0/24", "10.244.0.0/16"),
     ("10.0.0.0/8", "10.244.0.0/16")],
)  # fmt: skip
def test_a_network_of_nodes_or_pods_is_refused(network: str, other: str) -> None:
    agent = Agent(cluster_cidrs=(parse_network("10.244.0.0/16"),))
    agent.tell(*lists(), Listed(SERVICE_CIDRS, (cidr("a", network), cidr("b", "10.96.0.0/12"))))
    expected = ["10.96.0.0/12"]
    assert written(agent) == expected
    (problem,) = agent.loop.status()["serviceNetworkProblems"]
    assert network in problem and other in problem
    agent.tell(changed("c", "10.97.0.0/16"))
    assert len(agent.log.of("service network")) == 1
    agent.tell(Deleted(SERVICE_CIDRS, ObjectKey("", "a")))
    assert agent.loop.status()["serviceNetworkProblems"] == []


def test_what_does_not_fit_is_reported(agent: Agent) -> None:
    agent.tell(*lists(), changed("b", "10.112.0.0/16"), changed("c", "10.113.0.0/16"))
    assert written(agent) == ["10.96.0.0/12", "10.112.0.0/16"]
    (problem,) = agent.loop.status()["serviceNetworkProblems"]
    assert "10.113.0.0/16" in problem and "room" in problem

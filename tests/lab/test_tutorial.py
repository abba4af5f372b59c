"""The tutorial: each step in the tests' lab, and with its subject broken."""

import io
from collections.abc import Callable, Iterator

import pytest

from ebpf_lb.lab.cluster import Lab
from ebpf_lb.lessons.tutorial import course, stage
from ebpf_lb.lessons.tutorial.course import STEPS, Step, find
from ebpf_lb.lessons.tutorial.stage import UnexpectedError
from tests.lab.test_outside import until

COREDNS = "/apis/apps/v1/namespaces/kube-system/deployments/coredns/scale"

# What must have been seen: it is in no step's text.
SEEN = {
    "deployment": "not ready\n",
    "clusterip": "KUBE-SEP-",
    "environment": "HOSTNAMES_PORT_80_TCP_PROTO=tcp",
    "dns": "nameserver ",
    "outside": "node2 rewrites",
    "ingress": "SSL certificate verify ok.",
}


def steps(*names: str) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("step", [find(name) for name in names], ids=names)


@pytest.mark.parametrize("step", STEPS, ids=lambda step: step.name)
def test_a_step(lab: Lab, step: Step) -> None:
    out = io.StringIO()
    course.run(lab, step, out)
    assert SEEN[step.name] in out.getvalue()
    namespaces = lab.client.get("/api/v1/namespaces")["items"]
    left = [n for n in namespaces if n["metadata"]["name"] == f"tutorial-{step.name}"]
    assert all("deletionTimestamp" in n["metadata"] for n in left)


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stage.Stage, "within_s", 8.0)
    monkeypatch.setattr(stage.Stage, "answer_s", 1)


@pytest.fixture(scope="module")
def without_agents(lab: Lab) -> Iterator[None]:
    names = [node.name for node in lab.nodes()]
    for name in names:
        lab.stop_agent(name)
    yield
    for name in names:
        lab.start_agent(name)
    lab.wait_for_agents()


@pytest.fixture
def without_dns(lab: Lab) -> Iterator[None]:
    def servers() -> int:
        return len([pod for pod in lab.pods() if pod.namespace == "kube-system"])

    lab.client.patch(COREDNS, {"spec": {"replicas": 0}})
    until(lambda: servers() == 0, "cluster DNS does not go")
    yield
    lab.client.patch(COREDNS, {"spec": {"replicas": 2}})
    until(lambda: servers() == 2, "cluster DNS does not come back")


@steps("dns")
def test_names_without_dns_are_noticed(
    lab: Lab, impatient: None, without_dns: None, step: Step
) -> None:
    with pytest.raises(UnexpectedError, match=r"step dns: hostnames leads to 10\.96"):
        course.run(lab, step, io.StringIO())


@steps("deployment", "clusterip", "environment", "outside")
def test_services_that_nobody_programs_are_noticed(
    lab: Lab, impatient: None, without_agents: None, step: Step
) -> None:
    with pytest.raises(UnexpectedError, match=f"step {step.name}: "):
        course.run(lab, step, io.StringIO())


def test_a_step_that_is_not_there(cli: Callable[..., object]) -> None:
    with pytest.raises(course.NoSuchStepError, match="it has deployment, clusterip"):
        find("quantum")
    assert find("2").name == "clusterip"

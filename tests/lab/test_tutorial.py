"""The tutorial: each step in the tests' lab, and with its subject broken."""

import io
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest

from ebpf_lb.lab.cluster import Lab
from ebpf_lb.lessons.tutorial import course
from ebpf_lb.lessons.tutorial.course import STEPS, Step, find
from ebpf_lb.lessons.tutorial.stage import Stage
from ebpf_lb.lessons.tutorial.steps.ingress import DEPLOY
from tests.lab import spoilt
from tests.lab.test_outside import until

ROOT = Path(__file__).parents[2]
COREDNS = "/apis/apps/v1/namespaces/kube-system/deployments/coredns/scale"

# What must have been seen: it is in no step's text.
SEEN = {
    "deployment": "not ready\n",
    "clusterip": "KUBE-SEP-",
    "environment": "HOSTNAMES_PORT_80_TCP_PROTO=tcp",
    "dns": "IN PTR hostnames.tutorial-dns.",
    "outside": "node2 rewrites",
    "kinds": "mirrored into EndpointSlice database-",
    "ingress": "SSL certificate verify ok.",
    "network": "VXLAN       8 bytes  network 1",
}

# Step, in what it applies, what is broken: with which sentence it fails.
BROKEN = (
    ("deployment", "  ipFamilyPolicy:", "  publishNotReadyAddresses: true\n  ipFamilyPolicy:",
     "endpoints hostnames"),
    ("deployment", '"replicas": 5', '"replicas": 4', "5 ready pods"),
    ("clusterip", "port: 80\n", "port: 81\n", "answers of hostnames"),
    ("clusterip", "algorithm: rr", "algorithm: sh", "each pod takes its turn"),
    ("clusterip", "io/weights", "io/shares", "as many turns as it has weight"),
    ("clusterip", "algorithm: lc", "algorithm: sh", "the busy pod is spared"),
    ("clusterip", "algorithm: sh", "algorithm: rr", "one pod for"),
    ("environment", "spec: {containers", "spec: {enableServiceLinks: false, containers",
     "the address is not there"),
    ("environment", "{name: before}\nspec: {containers: [{",
     "{name: before}\nspec: {containers: [{env: [{name: HOSTNAMES_X, value: y}], ",
     "a pod knows a Service that came later"),
    ("dns", "clusterIP: None", "type: ClusterIP", "nginx leads to"),
    ("dns", "serviceName: nginx", "serviceName: other", "web-1.nginx"),
    ("dns", "hostname: busy", "hostname: idle", "busy.nginx"),
    ("dns", "publishNotReadyAddresses: true", "publishNotReadyAddresses: false",
     "members leads to"),
    ("dns", "externalName: hostnames", "externalName: nothing", "old-name leads to"),
    ("dns", "--upstream=", "--another=", "www.example.org leads to"),
    ("outside", "externalTrafficPolicy: Local", "externalTrafficPolicy: Cluster",
     "node2 serves it no more"),
    ("outside", "selector: {app: web}", "selector: {app: nobody}", "an answer at"),
    ("outside", "type: LoadBalancer", "type: NodePort", "the cloud gives an address"),
    ("outside", "nodeName: node1", "nodeName: node2", "node1 put somebody"),
    ("kinds", "kind: Endpoints\nmetadata: {name: database}",
     "kind: Endpoints\nmetadata: {name: another}", "the database answers"),
    ("kinds", '  clusterIP: "', '  # clusterIP: "', "answers of app"),
    ("kinds", "targetPort: 9376, nodePort: 3", "targetPort: 9376, name: p3", "answers of app"),
    ("kinds", "externalName: chosen", "externalName: nobody", "alias leads to"),
    ("kinds", "clusterIP: None", "type: ClusterIP", "headless leads to"),
    ("kinds", "sessionAffinity: ClientIP", "sessionAffinity: None", "one pod for one client"),
    ("kinds", "timeoutSeconds: 2", "timeoutSeconds: 3600", "other pods after a pause"),
    ("ingress", "ingressClassName: nginx", "ingressClassName: other",
     "the Ingress has the controller's address"),
    ("ingress", "secretName: cafe-secret", "secretName: another", "tea at /tea"),
    ("ingress", "name: coffee-svc, port", "name: tea-svc, port", "coffee at /coffee"),
    ("network", "nodeName: node2", "nodeName: node1", "it did not leave node1"),
)  # fmt: skip

# Likewise, where no agent runs.
UNPROGRAMMED = {
    "deployment": "answers of hostnames",
    "clusterip": "answers of hostnames",
    "environment": "answers of hostnames",
    "outside": "an answer at",
    "kinds": "answers of app",
    "ingress": "tea at /tea",
}


@pytest.fixture(scope="module")
def ingress_nginx(lab: Lab) -> Iterator[None]:
    """A controller that the steps find, and leave where it is."""
    lab.apply([DEPLOY])
    yield
    lab.delete([DEPLOY])


@pytest.mark.parametrize("step", STEPS[:-1], ids=lambda step: step.name)
def test_a_step(lab: Lab, step: Step) -> None:
    _take(lab, step, Stage)


def test_the_network_between_the_nodes(lab: Lab, vxlan_lab: Lab, udp_lab: Lab) -> None:
    """The last step makes labs of its own; here the tests' stand in their place."""

    class Beside(Stage):
        @contextmanager
        def labs_beside(self, networks: Sequence[str]) -> Iterator[dict[str, Callable[[], Lab]]]:
            assert list(networks) == ["vxlan", "udp"]
            yield {"vxlan": lambda: vxlan_lab, "udp": lambda: udp_lab}

    _take(lab, STEPS[-1], Beside)


def _take(lab: Lab, step: Step, kind: type[Stage]) -> None:
    out = io.StringIO()
    course.run(lab, step, out, kind)
    assert SEEN[step.name] in out.getvalue()
    namespaces = lab.client.get("/api/v1/namespaces")["items"]
    left = [n for n in namespaces if n["metadata"]["name"] == f"tutorial-{step.name}"]
    assert all("deletionTimestamp" in n["metadata"] for n in left)


# --- broken, side by side


def failures(lab: Lab, wanted: Sequence[tuple[str, str, str, str]]) -> list[str]:
    """With which sentence each fails, where that is not as expected."""
    running = []
    for number, (step, old, new, expected) in enumerate(wanted):
        words = [sys.executable, "-m", "tests.lab.sabotage", lab.name, step, str(number), expected]
        change = [old, new] if old else []
        running.append(
            subprocess.Popen(
                [*words, *change], cwd=ROOT, text=True,
                stdout=subprocess.PIPE, stderr=subprocess.PIPE,
            )
        )  # fmt: skip
    found = []
    for process, (step, old, _, expected) in zip(running, wanted, strict=True):
        said, errors = process.communicate()
        if expected not in said or process.returncode:
            found.append(f"{step} ({old!r}): expected {expected!r}, not {said!r} {errors}")
    return found


@pytest.mark.parametrize("half", [0, 1])
def test_what_is_broken_is_noticed(lab: Lab, ingress_nginx: None, half: int) -> None:
    assert failures(lab, BROKEN[half::2]) == []


def test_services_that_nobody_programs_are_noticed(lab: Lab, ingress_nginx: None) -> None:
    names = [node.name for node in lab.nodes()]
    for name in names:
        lab.stop_agent(name)
    try:
        wanted = [(step, "", "", expected) for step, expected in UNPROGRAMMED.items()]
        assert failures(lab, wanted) == []
    finally:
        for name in names:
            lab.start_agent(name)
        lab.wait_for_agents()


def test_names_without_dns_are_noticed(lab: Lab) -> None:
    def servers() -> int:
        return len([pod for pod in lab.pods() if pod.namespace == "kube-system"])

    lab.client.patch(COREDNS, {"spec": {"replicas": 0}})
    until(lambda: servers() == 0, "cluster DNS does not go")
    try:
        assert failures(lab, [("dns", "", "", "hostnames leads to A 10.96")]) == []
    finally:
        lab.client.patch(COREDNS, {"spec": {"replicas": 2}})
        until(lambda: servers() == 2, "cluster DNS does not come back")


def test_each_part_is_tried_on_something_broken(lab: Lab, ingress_nginx: None) -> None:
    """Parts that share a run, one after the other (spoilt.py); the steps side by side."""
    words = [sys.executable, "-m", spoilt.__name__, lab.name]
    running = [
        subprocess.Popen(
            [*words, step], cwd=ROOT, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )
        for step in spoilt.STEPS
    ]
    said = [process.communicate() for process in running]
    assert [out.strip() for out, _ in said] == [""] * len(said), said
    ended = [(process.returncode, err) for process, (_, err) in zip(running, said, strict=True)]
    assert [err for code, err in ended if code] == []


def test_a_step_that_is_not_there() -> None:
    with pytest.raises(course.NoSuchStepError, match="it has deployment, clusterip"):
        find("quantum")
    assert find("2").name == "clusterip"

"""Runs a scenario in a lab: manifests, one real connection, what was captured of it."""

import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any

from ebpf_lb.apiserver.kinds import NAMESPACE, SERVICE
from ebpf_lb.errors import UserError
from ebpf_lb.lab import state
from ebpf_lb.lab.cluster import Lab
from ebpf_lb.lab.objects.apply import apply_files
from ebpf_lb.lab.objects.client import ApiError, Client
from ebpf_lb.lessons.scenarios import record as recorder
from ebpf_lb.lessons.scenarios.catalog import Scenario
from ebpf_lb.lessons.scenarios.frames import Endpoint
from ebpf_lb.lessons.scenarios.record import Question
from ebpf_lb.lessons.scenarios.recording import Recording

# on a machine that is busy with other things; what does not come, does not come at all
_PODS_WITHIN_S = 60.0
_OUTCOME_WITHIN_S = 30.0
Json = dict[str, Any]


class ScenarioError(UserError):
    """A scenario cannot be run in this lab."""


@contextmanager
def prepared(
    lab: Lab,
    scenario: Scenario,
    keep: bool = False,
    progress: Callable[[str], None] = lambda _: None,
) -> Iterator[None]:
    """The scenario's objects are there meanwhile, in a namespace of their own. Raises
    ScenarioError, and what applying raises."""
    _check(lab, scenario)
    with _alone(lab, scenario):
        yield from _prepared(lab, scenario, keep, progress)


def _prepared(
    lab: Lab, scenario: Scenario, keep: bool, progress: Callable[[str], None]
) -> Iterator[None]:
    namespace = scenario.namespace
    client = lab.client
    _make_namespace(client, namespace)
    try:
        progress(f"applying {scenario.name}'s manifests in namespace {namespace}")
        apply_files(client, [str(scenario.manifests)], namespace)
        _wait_for_pods(lab, scenario)
        yield
    finally:
        if not keep:
            progress(f"removing namespace {namespace}")
            client.delete(NAMESPACE.path(None, namespace))


def record(lab: Lab, scenario: Scenario, version: int) -> list[Recording]:
    """Connects as the scenario says, by this IP version, and records each connection. Waits for the
    outcome that the scenario expects, but in the end records whatever comes. Raises ScenarioError.
    """
    asked = _address(lab, scenario, version)
    pinned = scenario.address in ("loadBalancer", "externalIP") and scenario.node
    if pinned:
        lab.route(asked.address, scenario.node)
    try:
        deadline = time.monotonic() + _OUTCOME_WITHIN_S
        _wait_for_outcome(lab, scenario, asked, deadline)
        return [
            _record_expected(lab, scenario, asked, deadline) for _ in range(scenario.connections)
        ]
    finally:
        if pinned:
            lab.route(asked.address, None)


def _alone(lab: Lab, scenario: Scenario) -> AbstractContextManager[None]:
    """Two runs of one scenario in a lab would remove each other's objects. Scenarios of other names
    do not meet."""
    busy = ScenarioError(
        f"scenario {scenario.name} is being run in lab {lab.name!r} already: wait until it "
        "has ended"
    )
    return state.alone(lab.names.dir / f"scenario-{scenario.name}.lock", busy)


def _make_namespace(client: Client, name: str) -> None:
    """One that an earlier run kept will do; one that is being removed is waited for."""
    deadline = time.monotonic() + _PODS_WITHIN_S
    while True:
        try:
            client.create(NAMESPACE.collection_path(None), {"metadata": {"name": name}})
            return
        except ApiError as error:
            if error.reason != "AlreadyExists":
                raise
        try:
            if "deletionTimestamp" not in client.get(NAMESPACE.path(None, name))["metadata"]:
                return
        except ApiError as error:
            if error.status != 404:
                raise
        if time.monotonic() > deadline:
            raise ScenarioError(
                f"namespace {name} of an earlier run is still being removed: see "
                f"`ebpf-lb lab get pods -n {name}`"
            )
        time.sleep(0.05)


def _check(lab: Lab, scenario: Scenario) -> None:
    options = lab.options
    if options.nodes < scenario.nodes:
        raise ScenarioError(
            f"scenario {scenario.name} needs {scenario.nodes} nodes, and lab {lab.name!r} has "
            f"{options.nodes}: use another lab, `ebpf-lb lab up --name NAME`"
        )


def _wait_for_pods(lab: Lab, scenario: Scenario) -> None:
    """Until all pods of the namespace are ready."""
    path = f"/api/v1/namespaces/{scenario.namespace}/pods"
    deadline = time.monotonic() + _PODS_WITHIN_S
    while True:
        pods = lab.client.get(path)["items"]
        waiting = [pod["metadata"]["name"] for pod in pods if not _is_ready(pod)]
        if pods and not waiting:
            return
        if time.monotonic() > deadline:
            raise ScenarioError(
                f"these pods of scenario {scenario.name} do not get ready: {', '.join(waiting)}; "
                f"see `ebpf-lb lab get pods -n {scenario.namespace}` of a run with --keep"
            )
        time.sleep(0.05)


def _is_ready(pod: Json) -> bool:
    conditions = pod.get("status", {}).get("conditions") or ()
    return any(c["type"] == "Ready" and c["status"] == "True" for c in conditions)


def _address(lab: Lab, scenario: Scenario, version: int) -> Endpoint:
    """Whom to ask. A load balancer's address may take a moment to be given."""
    deadline = time.monotonic() + _OUTCOME_WITHIN_S
    while True:
        service = lab.client.get(SERVICE.path(scenario.namespace, scenario.service))
        for endpoint in _addresses(lab, scenario, service):
            if (":" in endpoint.address) == (version == 6):
                return endpoint
        if time.monotonic() > deadline:
            raise ScenarioError(
                f"Service {scenario.service} has no IPv{version} {scenario.address}: "
                f"is lab {lab.name!r} of that family, and up to date?"
            )
        time.sleep(0.05)


def _addresses(lab: Lab, scenario: Scenario, service: Json) -> list[Endpoint]:
    spec, port = service["spec"], service["spec"]["ports"][0]
    match scenario.address:
        case "clusterIP":
            found = spec.get("clusterIPs") or []
        case "externalIP":
            found = spec.get("externalIPs") or []
        case "loadBalancer":
            ingress = (service.get("status", {}).get("loadBalancer") or {}).get("ingress") or []
            found = [each["ip"] for each in ingress if "ip" in each]
        case _:
            node = lab.node(scenario.node)
            return [Endpoint(address, port["nodePort"]) for address in node.addresses]
    return [Endpoint(address, port["port"]) for address in found]


def _wait_for_outcome(lab: Lab, scenario: Scenario, asked: Endpoint, deadline: float) -> None:
    """The agents take a moment to follow; and neighbours find each other meanwhile, so that what is
    recorded later is the usual way and not that of the very first packet."""
    while time.monotonic() < deadline:
        if recorder.connect(lab, _question(scenario, asked))["outcome"] == scenario.outcome:
            return
        time.sleep(0.1)


def _question(scenario: Scenario, asked: Endpoint) -> Question:
    return Question(
        client=scenario.client.removeprefix("pod/"),
        asked=asked,
        protocol=scenario.protocol,
        request=scenario.request,
        namespace=scenario.namespace,
    )


def _record_expected(lab: Lab, scenario: Scenario, asked: Endpoint, deadline: float) -> Recording:
    """One with the outcome that is expected: on a busy machine an answer may come too late, and
    silence is our programs' only if they have counted it."""
    while True:
        found = recorder.record(lab, _question(scenario, asked))
        silent = scenario.outcome == "silent"
        expected = found.connection.outcome == scenario.outcome and (found.drops or not silent)
        if expected or time.monotonic() > deadline:
            return found

"""The order of things: what is written when, what is removed when, what is done again."""

from typing import Any

import pytest

from ebpf_lb.agent.inbox import NetworkChanged
from ebpf_lb.agent.network.roles import Address, Framing, Link
from ebpf_lb.kube.resources import ENDPOINT_SLICES, ENDPOINTS, SERVICES, node
from ebpf_lb.kube.watch import Changed, Deleted, Interrupted, Listed, Problem, Restored
from ebpf_lb.model.endpoints import EndpointSlice
from ebpf_lb.model.key import ObjectKey
from ebpf_lb.model.node import AUTOSCALER_TAINT, Node
from ebpf_lb.model.service import Service, ServiceType, TrafficPolicy
from ebpf_lb.model.values import Family, Protocol, parse_address
from ebpf_lb.plan.forwarding import Forwarding, FrontendKind, ServicePortName
from tests.unit.agent.fakes import VETH4, VETH5, Agent, Writer, facts
from tests.unit.plan.make import a_slice, addresses, endpoint, service

NODES = node("node1")
WEB, DNS = ObjectKey("default", "web"), ObjectKey("kube-system", "dns")
OLD = Forwarding(
    ServicePortName("gone", "old", "", Protocol.TCP), Family.IPV4, (), (), (), has_any=False
)


def web(**fields: Any) -> Service:
    return service(WEB, **fields)


def dns(**fields: Any) -> Service:
    return service(DNS, **{"cluster_ips": addresses("10.96.0.10"), **fields})


def endpoints(*where: str) -> EndpointSlice:
    return a_slice(*map(endpoint, where), service=WEB, name="web-1")


def lists(*services: Service, slices: tuple[EndpointSlice, ...] = ()) -> list[Listed]:
    return [
        Listed(SERVICES, services),
        Listed(ENDPOINT_SLICES, slices),
        Listed(NODES, (Node("node1"),)),
    ]


@pytest.fixture
def agent() -> Agent:
    """One that has seen its first lists."""
    made = Agent()
    made.tell(*lists(web(), dns(), slices=(endpoints("10.0.0.1"),)))
    assert made.calls == ["set default/web:http", "set kube-system/dns:http", "retain"]
    return made


def held(agent: Agent) -> list[str]:
    return [str(name) for name in agent.writer.held]


@pytest.mark.rule("CP-1")
@pytest.mark.parametrize("last", range(3))
def test_nothing_is_removed_before_all_lists_are_complete(last: int) -> None:
    agent = Agent(Writer(Family.IPV4, [OLD]))
    events = lists(web())
    final = events.pop(last)
    for event in events:
        agent.tell(event)
    agent.tell(Changed(SERVICES, dns(), DNS))
    agent.second()
    assert agent.calls == []
    assert not agent.loop.complete
    agent.tell(final)
    calls = agent.calls
    # a list of Services that comes last does not know the one that a watch told of
    assert calls[0] == "set default/web:http"
    assert calls[-2:] == ["retain", "delete gone/old"]
    assert agent.loop.complete
    assert agent.taken_over == 1


@pytest.mark.rule("CP-2")
def test_a_restart_with_unchanged_input_writes_nothing() -> None:
    first = Agent()
    first.tell(*lists(web(), dns(), slices=(endpoints("10.0.0.1"),)))
    assert first.programmer.writes > 0
    second = Agent(first.writer)
    second.tell(*lists(dns(), web(), slices=(endpoints("10.0.0.1"),)))
    assert second.programmer.writes == 0
    assert second.log.of("synced")[0]["writes"] == 0


def test_only_what_changed_is_planned_again(agent: Agent, monkeypatch: pytest.MonkeyPatch) -> None:
    planned: list[ObjectKey] = []
    plan = agent.cluster.plan
    monkeypatch.setattr(agent.cluster, "plan", lambda key: [planned.append(key), plan(key)][1])
    agent.tell(Changed(ENDPOINT_SLICES, endpoints("10.0.0.1", "10.0.0.2"), WEB))
    assert agent.calls == ["set default/web:http"]
    assert planned == [WEB]
    agent.tell(Changed(ENDPOINT_SLICES, endpoints("10.0.0.1", "10.0.0.2"), WEB))
    assert agent.calls == []
    assert planned == [WEB]


def test_a_first_change_acts_at_once_and_a_burst_is_gathered(agent: Agent) -> None:
    agent.tell(Changed(ENDPOINT_SLICES, endpoints("10.0.0.1", "10.0.0.2"), WEB))
    assert agent.calls == ["set default/web:http"]
    agent.clock.now += 0.002
    for last in range(3, 9):
        agent.tell_now(Changed(ENDPOINT_SLICES, endpoints("10.0.0.1", f"10.0.0.{last}"), WEB))
        agent.clock.now += 0.001
    assert agent.calls == []
    assert agent.inbox.oldest_waiting is not None
    agent.second(0.002)
    assert agent.calls == ["set default/web:http"]
    assert agent.inbox.oldest_waiting is None


def test_deletion_and_return(agent: Agent) -> None:
    agent.tell(Deleted(SERVICES, WEB))
    assert agent.calls == ["delete default/web:http"]
    agent.tell(Changed(SERVICES, web(), WEB))
    assert agent.calls == ["set default/web:http"]
    agent.tell(Changed(SERVICES, web(type=ServiceType.EXTERNAL_NAME, cluster_ips=()), WEB))
    assert agent.calls == ["delete default/web:http"]
    assert held(agent) == ["kube-system/dns:http"]
    assert agent.programmer.services == 1


def test_a_relist_removes_what_vanished_meanwhile(agent: Agent) -> None:
    agent.tell(Listed(SERVICES, (dns(),)))
    assert agent.calls == ["delete default/web:http"]


def test_a_new_owner_is_written_before_the_old_one_goes(agent: Agent) -> None:
    """The address moves from web to api: it is at no time without an owner."""
    api = ObjectKey("default", "api")
    agent.tell(Deleted(SERVICES, WEB), Changed(SERVICES, service(api), api))
    assert agent.calls == ["set default/api:http", "delete default/web:http"]


@pytest.mark.rule("CP-6")
def test_one_that_fails_is_reported_does_not_hold_back_others_and_is_retried() -> None:
    agent = Agent()
    agent.writer.room = 1
    agent.tell(*lists(web(), dns()))
    assert agent.calls[:3] == ["set default/web:http", "refuse kube-system/dns:http", "retain"]
    sentence = "Service port kube-system/dns:http (TCP, IPv4) is not programmed: no room."
    assert agent.loop.status()["notProgrammed"] == [sentence]
    assert agent.log.of("not programmed") == [{"service": "kube-system/dns", "error": sentence}]
    assert agent.reports == [(DNS, sentence)]
    agent.second(30)
    agent.writer.calls.clear()
    agent.second(1)
    assert agent.calls == []  # nothing has become free: no use in trying
    agent.tell(Deleted(SERVICES, WEB))
    agent.second()
    assert agent.calls == ["delete default/web:http", "set kube-system/dns:http"]
    assert agent.loop.status()["notProgrammed"] == []
    assert len(agent.log.of("not programmed")) == 1
    assert agent.log.of("programmed after all") == [{"service": "kube-system/dns"}]


def test_room_that_comes_while_the_agent_cannot_run_is_used() -> None:
    agent = Agent()
    agent.writer.room = 1
    agent.tell(*lists(web(), dns()))
    agent.second(30)
    agent.writer.room = 0  # what is deleted comes free later
    agent.tell(Deleted(SERVICES, WEB))
    agent.writer.room = 1
    agent.writer.calls.clear()
    agent.second(10)
    assert agent.calls == ["set kube-system/dns:http"]


def test_one_that_failed_is_retried_now_and_then_without_cause(agent: Agent) -> None:
    name = ServicePortName("default", "web", "http", Protocol.TCP)
    agent.writer.broken.add(name)
    agent.tell(Changed(ENDPOINT_SLICES, endpoints("10.0.0.9"), WEB))
    agent.second(4)  # once more after the last change
    agent.writer.broken.clear()
    agent.writer.calls.clear()
    agent.second(59)
    assert agent.calls == []
    agent.second(2)
    assert agent.calls == ["set default/web:http"]


def test_a_removal_that_fails_is_retried(agent: Agent) -> None:
    name = ServicePortName("default", "web", "http", Protocol.TCP)
    agent.writer.broken.add(name)
    agent.tell(Deleted(SERVICES, WEB))
    assert held(agent) == ["default/web:http", "kube-system/dns:http"]
    assert len(agent.loop.status()["notProgrammed"]) == 1
    agent.writer.broken.clear()
    agent.second(61)
    assert held(agent) == ["kube-system/dns:http"]
    assert agent.loop.status()["notProgrammed"] == []


def test_one_that_never_fitted_and_goes_is_forgotten() -> None:
    agent = Agent()
    agent.writer.room = 1
    agent.tell(*lists(web(), dns()))
    agent.tell(Deleted(SERVICES, DNS))
    assert agent.loop.status()["notProgrammed"] == []
    assert agent.log.of("programmed after all") == []


def test_a_mistake_of_ours_about_one_service_is_not_the_others_loss(
    agent: Agent, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = agent.cluster.plan

    def broken(key: ObjectKey) -> tuple[Forwarding, ...]:
        if key == WEB:
            raise ZeroDivisionError
        return plan(key)

    monkeypatch.setattr(agent.cluster, "plan", broken)
    agent.tell(Deleted(SERVICES, WEB), Changed(SERVICES, dns(affinity_timeout_s=9), DNS))
    assert agent.calls == ["set kube-system/dns:http"]
    assert held(agent) == ["default/web:http", "kube-system/dns:http"]
    assert agent.loop.status()["notProgrammed"] == ["internal error: ZeroDivisionError()"]
    monkeypatch.undo()
    agent.second(61)
    assert agent.calls == ["delete default/web:http"]
    assert agent.loop.status()["notProgrammed"] == []


def test_what_cannot_be_planned_at_the_start_keeps_what_is_in_the_maps(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    first = Agent()
    first.tell(*lists(web(), dns()))
    second = Agent(first.writer)
    monkeypatch.setattr(second.cluster, "plan", lambda key: 1 / 0)
    second.tell(*lists(web()))
    assert second.calls == ["retain", "delete kube-system/dns:http"]


def test_two_that_ask_for_one_address_are_reported(agent: Agent) -> None:
    api = ObjectKey("default", "api")
    agent.tell(Changed(SERVICES, service(api, created_s=5), api))
    assert len(agent.loop.status()["conflicts"]) == 1
    assert [fields["service"] for fields in agent.log.of("conflict")] == ["default/api"]
    assert [key for key, _ in agent.reports] == [api]
    agent.tell(Deleted(SERVICES, WEB))
    assert agent.loop.status()["conflicts"] == []
    assert "default/api:http" in held(agent)


def test_who_still_gets_nothing_is_told_who_has_it_now_without_ado(agent: Agent) -> None:
    two, three = ObjectKey("default", "two"), ObjectKey("default", "three")
    agent.tell(
        Changed(SERVICES, service(two, created_s=5), two),
        Changed(SERVICES, service(three, created_s=6), three),
    )
    assert len(agent.reports) == 2
    agent.tell(Deleted(SERVICES, WEB))
    agent.second()
    (told,) = agent.loop.status()["conflicts"]
    assert "default/three does not get 10.96.0.1:80/TCP: Service default/two has it" in told
    assert len(agent.reports) == 2


@pytest.mark.rule("KI-17")
def test_node_ports_follow_the_nodes_addresses(agent: Agent) -> None:
    port = web().ports[0].__class__("http", Protocol.TCP, 80, node_port=30080)
    agent.tell(Changed(SERVICES, web(type=ServiceType.NODE_PORT, ports=(port,)), WEB))
    agent.writer.calls.clear()
    extra = Address(2, parse_address("172.30.0.99"), 0)
    agent.tell(NetworkChanged(facts(VETH4, more=(extra,))))
    assert agent.calls == ["set default/web:http"]
    (forwarding,) = [one for name, one in agent.writer.held.items() if name.name == "web"]
    node_ports = {one.address for one in forwarding.frontends if one.kind is FrontendKind.NODE_PORT}
    assert extra.address in node_ports
    agent.tell(NetworkChanged(facts(VETH4)))
    assert agent.calls == ["set default/web:http"]


def test_primary_node_ports_are_on_one_address_a_family() -> None:
    agent = Agent(node_port_addresses=("primary",))
    port = web().ports[0].__class__("http", Protocol.TCP, 80, node_port=30080)
    agent.tell(*lists(web(type=ServiceType.NODE_PORT, ports=(port,))))
    more = facts(VETH4, more=(Address(2, parse_address("172.30.0.99"), 0),))
    internal, external = parse_address("172.30.0.11"), parse_address("172.30.0.99")
    named = Node("node1", addresses=(internal, external))
    agent.tell(NetworkChanged(more), Changed(NODES, named, named.key))
    (forwarding,) = agent.writer.held.values()
    found = [one.address for one in forwarding.frontends if one.kind is FrontendKind.NODE_PORT]
    assert found == [internal]


def balancer(**fields: Any) -> Service:
    given = {
        "type": ServiceType.LOAD_BALANCER,
        "external_policy": TrafficPolicy.LOCAL,
        "health_check_node_port": 32100,
    }
    return web(**{**given, **fields})


def test_health_checks_follow_the_service_and_its_endpoints(agent: Agent) -> None:
    def served() -> list[tuple[int, int]]:
        found = agent.health_checks.served.values()
        return [(check.port, check.local_endpoints) for check in found]

    here = a_slice(endpoint("10.0.0.1", node="node1"), service=WEB, name="web-1")
    agent.tell(Changed(SERVICES, balancer(), WEB))
    assert served() == [(32100, 0)]
    agent.tell(Changed(ENDPOINT_SLICES, here, WEB))
    assert served() == [(32100, 1)]
    agent.tell(Changed(SERVICES, balancer(health_check_node_port=32101), WEB))
    assert served() == [(32101, 1)]
    agent.tell(Changed(SERVICES, balancer(external_policy=TrafficPolicy.CLUSTER), WEB))
    assert served() == []
    agent.tell(Changed(SERVICES, balancer(), WEB))
    agent.tell(Deleted(SERVICES, WEB))
    assert served() == []


def test_a_health_check_that_failed_is_shown_and_retried_every_second(agent: Agent) -> None:
    agent.second()
    assert agent.health_checks.retries == 0
    agent.health_checks.failed[WEB] = "healthCheckNodePort 32100 cannot be served: taken"
    agent.second()
    agent.second()
    assert agent.health_checks.retries == 2
    assert agent.loop.status()["healthCheckProblems"] == [
        "default/web: healthCheckNodePort 32100 cannot be served: taken"
    ]


def test_interfaces_are_set_up_before_the_first_list_and_as_they_appear() -> None:
    agent = Agent()
    assert agent.writer.calls.index("interface 4") < agent.writer.calls.index("attach pod 4")
    agent.tell(NetworkChanged(facts(VETH4, VETH5)))
    assert "attach pod 5" in agent.writer.calls
    assert not agent.loop.complete


def test_an_uplink_that_cannot_be_served_is_reported_once(agent: Agent) -> None:
    tunnel = Link(9, "ib0", "", 0, False, framing=Framing.OTHER)
    more = (Address(9, parse_address("10.9.0.1"), 0),)
    agent.tell(NetworkChanged(facts(VETH4, tunnel, more=more)))
    agent.tell(NetworkChanged(facts(VETH4, VETH5, tunnel, more=more)))
    sentence = "ib0: not served, an uplink with frames of an unknown kind"
    assert agent.log.of("interface not served") == [{"problem": sentence}]
    assert agent.loop.status()["interfaceProblems"] == [sentence]


def test_new_and_empty_maps_are_filled_before_programs_use_them() -> None:
    agent = Agent(late=True)
    agent.tell(NetworkChanged(facts(VETH4, VETH5)))
    assert not any("attach" in call for call in agent.writer.calls)
    agent.tell(*lists(web()))
    calls = agent.writer.calls
    assert calls.index("set default/web:http") < calls.index("attach pod 4")
    assert "attach pod 5" in calls


@pytest.mark.parametrize("late", [False, True])
def test_the_old_build_is_kept_while_an_interface_may_run_it(late: bool) -> None:
    """Its slow paths would be gone, and every new connection there dropped."""
    agent = Agent(late=late)
    agent.control.refusing.add(5)
    agent.tell(NetworkChanged(facts(VETH4, VETH5)), *lists(web()))
    assert agent.loop.complete
    agent.second()
    assert agent.taken_over == 0
    agent.control.refusing.clear()
    agent.second()
    agent.second()
    assert agent.taken_over == 1


def test_it_is_not_complete_before_programs_use_the_maps(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever asks /healthz meanwhile, from another thread, hears so."""
    agent = Agent(late=True)
    complete: list[bool] = []
    attach = agent.control.attach

    def noting(ifindex: int, role: str = "pod") -> bool:
        complete.append(agent.loop.complete)
        return attach(ifindex, role)

    monkeypatch.setattr(agent.control, "attach", noting)
    agent.tell(*lists(web()))
    assert complete and not any(complete)
    assert agent.loop.complete


def test_the_node_object(agent: Agent) -> None:
    assert agent.loop.eligible
    doomed = Node("node1", taints=frozenset({AUTOSCALER_TAINT}))
    agent.tell(Changed(NODES, doomed, doomed.key))
    assert not agent.loop.eligible
    agent.tell(Deleted(NODES, doomed.key))
    assert not agent.loop.eligible  # what we last knew
    agent.tell(Changed(NODES, Node("node1"), doomed.key))
    assert agent.loop.eligible


@pytest.mark.rule("CP-4")
def test_trouble_with_the_watch_changes_nothing(agent: Agent) -> None:
    agent.tell(Problem(SERVICES, "Watching services is interrupted: refused; trying again."))
    assert agent.calls == []
    assert len(agent.log.of("watch problem")) == 1
    assert held(agent) == ["default/web:http", "kube-system/dns:http"]


def test_waiting_for_the_api_server_is_no_ill_health_of_ours() -> None:
    agent = Agent()
    agent.tell(lists()[0])
    assert agent.inbox.oldest_waiting is None
    assert agent.loop.status()["waitingFor"] == ["endpointslices", "nodes"]


def test_stop_ends_a_long_sync_between_two_services(
    agent: Agent, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = agent.cluster.plan

    def stopping(key: ObjectKey) -> tuple[Forwarding, ...]:
        agent.loop.stop()
        return plan(key)

    monkeypatch.setattr(agent.cluster, "plan", stopping)
    agent.tell(Deleted(SERVICES, WEB), Changed(SERVICES, dns(affinity_timeout_s=9), DNS))
    assert len(agent.calls) <= 1
    agent.loop.run()  # ends at once


@pytest.mark.rule("EP-1")
def test_endpoints_objects_as_the_source() -> None:
    """One object is all that is known of a Service's endpoints."""

    def backends() -> list[bytes]:
        (forwarding,) = agent.writer.held.values()
        return [one.address for one in forwarding.cluster]

    def subset(name: str, *where: str) -> EndpointSlice:
        return a_slice(*map(endpoint, where), service=WEB, name=name)

    one, two, three = addresses("10.0.0.1", "10.0.0.2", "10.0.0.3")
    agent = Agent(endpoints_source="endpoints")
    agent.tell(Listed(SERVICES, (web(),)), Listed(NODES, (Node("node1"),)))
    assert agent.loop.status()["waitingFor"] == ["endpoints"]
    agent.tell(Listed(ENDPOINTS, ((subset("web/0", "10.0.0.1"), subset("web/1", "10.0.0.2")), ())))
    assert agent.loop.complete
    assert backends() == [one, two]
    agent.tell(Changed(ENDPOINTS, (subset("web/0", "10.0.0.3"),), WEB))
    assert backends() == [three]
    agent.tell(Changed(ENDPOINTS, (), WEB))
    assert backends() == []
    agent.tell(Changed(ENDPOINTS, (subset("web/0", "10.0.0.3"),), WEB))
    agent.tell(Deleted(ENDPOINTS, WEB))
    assert backends() == []
    agent.tell(Listed(ENDPOINTS, ((subset("web/0", "10.0.0.1"),),)))
    assert backends() == [one]


def test_a_source_that_turns_out_to_be_endpoints_replaces_slices(agent: Agent) -> None:
    """The API server was replaced by one that has no EndpointSlices."""
    other = a_slice(endpoint("10.0.0.7"), service=WEB, name="web/0")
    agent.tell(Listed(ENDPOINTS, ((other,),)))
    forwarding = agent.writer.held[ServicePortName("default", "web", "http", Protocol.TCP)]
    assert [one.address for one in forwarding.cluster] == [*addresses("10.0.0.7")]
    assert agent.loop.status()["endpointsSource"] == "endpoints"


def test_what_a_node_waits_for_is_said() -> None:
    agent = Agent()
    assert agent.loop.waiting_for == [
        "the API server's list of endpointslices",
        "the API server's list of nodes",
        "the API server's list of services",
    ]
    agent.tell(*lists(web()))
    assert agent.loop.waiting_for == []


def test_only_what_the_cluster_lives_by_makes_a_node_unready() -> None:
    agent = Agent()
    agent.writer.room = 0
    agent.tell(*lists(web()))
    assert len(agent.loop.left_out) == 1 and agent.loop.problems == []
    agent.tell(Changed(SERVICES, dns(cluster_dns=True), DNS))
    assert len(agent.loop.left_out) == 2
    [sentence] = agent.loop.problems
    assert "kube-system/dns" in sentence
    agent.writer.room = 9
    agent.second(61)
    assert agent.loop.left_out == agent.loop.problems == []


def test_an_outage_of_the_server_is_a_problem_after_a_minute(agent: Agent) -> None:
    cause = "the API server https://192.0.2.1:6443 cannot be reached: connection refused"
    agent.tell(Interrupted(SERVICES, "Watching …", cause=cause))
    agent.second(30)
    assert agent.loop.problems == []
    agent.second(30)
    [sentence] = agent.loop.problems
    assert cause in sentence
    assert len(agent.log.of("cut off from the API server")) == 1
    agent.tell(Restored(SERVICES))
    assert agent.loop.problems == []
    assert held(agent) == ["default/web:http", "kube-system/dns:http"]


def test_what_is_wrong_with_a_service_is_said_on_it(agent: Agent) -> None:
    agent.tell(Problem(SERVICES, "Service default/web: spec.externalIPs is ignored.", WEB))
    agent.tell(Problem(ENDPOINT_SLICES, "EndpointSlice default/web-1: …", ObjectKey("d", "web-1")))
    assert agent.invalid == [(WEB, "Service default/web: spec.externalIPs is ignored.")]

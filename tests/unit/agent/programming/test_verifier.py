"""The agent compares its maps with the plan, a little at a time, and puts right what differs."""

from collections.abc import Callable
from typing import Any

from ebpf_lb.agent.programming.verifier import BUDGET_S, surplus
from ebpf_lb.datapath.writer import NODE_SOURCE_ID
from ebpf_lb.kube.resources import SERVICE_CIDRS, SERVICES
from ebpf_lb.kube.watch import Changed, Listed
from ebpf_lb.model.key import ObjectKey
from ebpf_lb.model.service_cidr import ServiceCIDR
from ebpf_lb.model.values import Family, parse_network
from tests.unit.agent.fakes import Agent
from tests.unit.agent.test_loop import dns, endpoints, lists, web
from tests.unit.plan.make import addresses, service

PERIOD_S = 30
SERVICES_NETWORKS = (parse_network("10.96.0.0/12"),)


def agent(**configured: Any) -> Agent:
    made = Agent(**configured)
    made.tell(*lists(web(), dns(), slices=(endpoints("10.0.0.1"),)))
    made.calls  # noqa: B018
    return made


def a_pass(made: Agent) -> list[str]:
    """Until the next pass is through; what was done to Services."""
    passes = made.verifier.passes
    made.second(PERIOD_S)
    for _ in range(50):
        if made.verifier.passes > passes:
            break
        made.second()
    return made.calls


def test_maps_as_planned_are_looked_at_and_left_alone() -> None:
    made = agent()
    assert made.verifier.passes == 0 and made.compared.asked == []
    assert a_pass(made) == []
    assert set(made.compared.asked) == {"default/web:http", "kube-system/dns:http"}
    assert made.verifier.passes == 1 and made.verifier.differences == 0
    made.second()
    assert made.verifier.passes == 1  # the period has only begun


def test_what_differs_is_read_back_written_and_told() -> None:
    made = agent()
    name = next(name for name in made.writer.held if name.name == "web")
    del made.writer.held[name]
    made.writer.calls.clear()
    made.second(PERIOD_S)
    assert made.writer.calls[-3:] == ["adopt", "set default/web:http", "retain"]
    (line,) = made.log.of("the maps are not as planned: they are written again")
    assert line["first"] == ["default/web:http (TCP): it is not in the maps"]
    assert made.verifier.differences == 1 and made.loop.problems == []
    made.calls  # noqa: B018
    assert a_pass(made) == [] and made.verifier.differences == 1


def test_what_cannot_be_put_right_is_a_problem_of_the_node() -> None:
    made = agent()
    made.compared.lost["default/web:http"] = "10.96.0.1:80 is missing"
    a_pass(made)
    assert made.loop.problems == []
    a_pass(made)
    sentence = "The maps do not stay as planned: default/web:http (TCP): 10.96.0.1:80 is missing."
    assert made.loop.problems == [sentence] == made.loop.status()["mapProblems"]
    made.compared.lost.clear()
    a_pass(made)
    assert made.loop.problems == []


def test_what_the_maps_say_of_the_node_is_put_right_and_told() -> None:
    made = agent(cluster_cidrs=(parse_network("10.244.0.0/16"),))
    made.tell(Listed(SERVICE_CIDRS, (ServiceCIDR(ObjectKey("", "a"), SERVICES_NETWORKS),)))
    writer = made.writer
    before = (dict(writer.entries), set(writer.pod_networks), writer.service_networks)
    sources = dict(writer.sources)
    assert a_pass(made) == [] and made.verifier.differences == 0
    spoilt: list[tuple[str, Callable[[], object]]] = [
        ("interfaces", lambda: writer.entries.pop(4)),
        ("interfaces", lambda: writer.entries.update({77: (0, 0)})),
        ("interfaces", lambda: writer.entries.update({4: (0, 200)})),
        ("snat_sources", lambda: writer.sources.pop(NODE_SOURCE_ID)),
        ("pod_networks", lambda: writer.pod_networks.clear()),
        ("service_networks", lambda: setattr(writer, "service_networks", ())),
    ]
    for number, (name, spoil) in enumerate(spoilt, 1):
        spoil()
        assert a_pass(made) == []  # no Service is touched
        assert (writer.entries, writer.pod_networks, writer.service_networks) == before
        assert writer.sources == sources and made.verifier.differences == number
        line = made.log.of("the maps are not as planned: they are written again")[-1]
        assert line["first"] == [f"1 ipv4 entries of the map {name} were not as they should be"]
        assert a_pass(made) == [] and made.loop.problems == []


def test_entries_of_nobody_are_differences() -> None:
    assert surplus({0: 5, 1: 3, 2: 1, 9: 2}, {1: 3, 2: 2}, Family.IPV4) == [
        "2 ipv4 entries lead to the Service port with id 9, and none of them is planned"
    ]
    made = agent()
    made.compared.more[1] = 2
    made.second(PERIOD_S)
    assert made.verifier.differences == 1 and made.writer.calls[-1] == "retain"


def test_a_pass_takes_a_bounded_share_of_a_second() -> None:
    made = agent()
    more = [
        service(ObjectKey("default", f"more-{number}"), cluster_ips=addresses(f"10.96.1.{number}"))
        for number in range(40)
    ]
    made.tell(*(Changed(SERVICES, one, one.key) for one in more))
    made.second(PERIOD_S)
    asked = len(made.compared.asked)
    assert made.verifier.passes == 0 and 0 < asked * 0.002 < 2 * BUDGET_S
    made.second()
    assert len(made.compared.asked) <= 2 * asked
    a_pass(made)
    assert made.verifier.passes == 1


def test_what_has_no_place_is_no_difference_and_0_is_never() -> None:
    made = Agent()
    made.writer.room = 1
    made.tell(*lists(web(), dns(), slices=(endpoints("10.0.0.1"),)))
    a_pass(made)
    assert made.verifier.passes == 1 and made.verifier.differences == 0
    never = agent(sync_period_s=0)
    never.second(10 * PERIOD_S)
    never.second()
    assert never.verifier.passes == 0


def test_maps_that_cannot_be_read_are_told_and_the_agent_goes_on() -> None:
    made = agent()
    asked, made.compared.differences = made.compared.differences, None  # type: ignore[method-assign]
    made.second(PERIOD_S)
    assert len(made.log.of("the maps cannot be compared")) == 1 and made.verifier.passes == 0
    made.compared.differences = asked  # type: ignore[method-assign]
    a_pass(made)
    assert made.verifier.passes == 1 and made.verifier.differences == 0

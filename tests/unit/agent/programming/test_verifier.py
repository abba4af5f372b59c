"""The agent compares its maps with the plan, a little at a time, and puts right what differs."""

from ebpf_lb.agent.programming.verifier import BUDGET_S, surplus
from ebpf_lb.kube.resources import SERVICES
from ebpf_lb.kube.watch import Changed
from ebpf_lb.model.key import ObjectKey
from ebpf_lb.model.values import Family
from tests.unit.agent.fakes import Agent
from tests.unit.agent.test_loop import dns, endpoints, lists, web
from tests.unit.plan.make import addresses, service

PERIOD_S = 30


def agent(**configured: int) -> Agent:
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

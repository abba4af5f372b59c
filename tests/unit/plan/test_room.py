"""Who gets a place where there is not room for all: a function of what is asked for."""

from hypothesis import given, settings
from hypothesis import strategies as st

from ebpf_lb.model.key import ObjectKey
from ebpf_lb.model.values import Protocol
from ebpf_lb.plan.forwarding import ServicePortName
from ebpf_lb.plan.priority import Priority
from ebpf_lb.plan.room import Demand, Lack, Room
from tests.support.chance import times
from tests.support.work import calls

CAPACITIES = Demand(6, 12, 12, 12, 4)


def name(namespace: str, number: int) -> ServicePortName:
    return ServicePortName(namespace, f"s{number}", "", Protocol.TCP)


def priority(of: ServicePortName, created_s: int = 0, tier: int = 1) -> Priority:
    return Priority(tier, created_s, ObjectKey(of.namespace, of.name))


NAMES = [name(namespace, number) for namespace in "ab" for number in range(5)]
asks = st.tuples(
    st.sampled_from(NAMES),
    st.builds(
        Demand,
        st.just(1),
        st.integers(1, 4),
        st.integers(0, 5),
        st.integers(0, 5),
        st.integers(0, 2),
    ),
    st.integers(0, 2),
    st.sampled_from([1, 1, 1, 0]),
)
Asked = dict[ServicePortName, tuple[Priority, Demand]]


def in_order(asked: Asked, share: int) -> set[ServicePortName]:
    """As the rule reads, with everything looked at anew."""
    within: set[ServicePortName] = set()
    for one in sorted(asked, key=lambda each: (asked[each][0], each)):
        own = [*within, one]
        sums = [sum(col) for col in zip(*(asked[each][1] for each in own), strict=True)]
        tenant = [e for e in own if e.namespace == one.namespace and not asked[e][0].critical]
        shares = [sum(asked[each][1][at] for each in tenant) for at in range(len(CAPACITIES))]
        wanted = asked[one][1]
        fits = all(
            not more or sum_ <= limit
            for sum_, limit, more in zip(sums, CAPACITIES, wanted, strict=True)
        )
        if not asked[one][0].critical:
            fits &= all(
                not more or sum_ <= limit * share // 100
                for sum_, limit, more in zip(shares, CAPACITIES, wanted, strict=True)
            )
        if fits:
            within.add(one)
    return within


@settings(max_examples=times(500), deadline=None)
@given(
    st.lists(st.one_of(asks, st.sampled_from(NAMES)), max_size=20), st.sampled_from([100, 60, 30])
)
def test_any_history_ends_as_if_all_had_asked_in_order(
    history: list[tuple[ServicePortName, Demand, int, int] | ServicePortName], share: int
) -> None:
    """What asks for more than before asks as one that is new: what it had is another matter."""
    room, asked = Room(CAPACITIES, share), Asked()
    lately: dict[ServicePortName, None] = {}
    for event in history:
        if isinstance(event, ServicePortName):
            asked.pop(event, None)
            room.give_back(event)
        else:
            who, demand, created_s, tier = event
            room.give_back(who)
            asked[who] = priority(who, created_s, tier), demand
            room.ask(who, *asked[who])
        lately.update(dict.fromkeys(room.take_displaced()))
        assert not any(room.holds(one) and one not in asked for one in NAMES)
        for _ in range(20):
            fitting = room.take_fitting()
            for one in fitting:
                room.ask(one, *asked[one])
            room.take_displaced()
            if not fitting:
                break
        else:
            raise AssertionError("it does not come to rest")
        assert {one for one in NAMES if room.holds(one)} == in_order(asked, share)


def test_it_says_what_is_lacking_and_whose_share() -> None:
    room = Room(CAPACITIES, 50)
    one, two, three = (name("a", number) for number in range(3))
    assert room.ask(one, priority(one), Demand(1, 6)) is None
    assert room.ask(two, priority(two), Demand(1, 1)) == Lack("frontends", 6, "a")
    other = name("b", 0)
    assert room.ask(other, priority(other, 5), Demand(1, 6)) is None
    critical = name("a", 9)
    assert room.ask(critical, priority(critical, 9, 0), Demand(1, 13)) == Lack("frontends", 12)
    assert room.ask(critical, priority(critical, 9, 0), Demand(1, 6)) is None
    assert room.take_displaced() == [other]
    assert room.ask(three, priority(three), Demand(1, 0)) is None


def test_what_grows_too_large_keeps_what_it_has() -> None:
    room = Room(CAPACITIES)
    one, two = name("a", 1), name("a", 2)
    room.ask(one, priority(one), Demand(1, 6))
    room.ask(two, priority(two), Demand(1, 5))
    assert room.ask(two, priority(two), Demand(1, 7)) == Lack("frontends", 12)
    assert room.holds(two)
    assert room.ask(name("b", 1), priority(name("b", 1)), Demand(1, 2)) is not None  # 5, not 7
    room.give_back(one)
    assert two in room.take_fitting()


def test_a_tenant_with_very_many_ports_costs_the_others_nothing() -> None:
    """Once its share is used up, neither its own refusals nor others' changes grow with it."""

    def work(refused: int) -> int:
        room = Room(Demand(1000, 1 << 17, 1 << 17, 1 << 20, 1000), 50)
        for number in range(500 + refused):
            port = ServicePortName("tenant", "big", f"p{number:05}", Protocol.TCP)
            room.ask(port, priority(port), Demand(1, 1))
        room.take_fitting()
        web = name("other", 1)
        return calls(lambda: room.ask(web, priority(web, 9), Demand(1, 2, 3, 3)))

    assert work(10_000) <= work(10) + 5

"""Services that ask for one address: who gets it, who is told, and how much work that is."""

from collections.abc import Iterable

from hypothesis import given, settings
from hypothesis import strategies as st

from ebpf_lb.model.key import ObjectKey
from ebpf_lb.model.service import LoadBalancerIngress, Service, ServicePort
from ebpf_lb.model.values import Protocol
from ebpf_lb.plan.cluster import Cluster
from ebpf_lb.plan.conflicts import MOST_SENTENCES
from ebpf_lb.plan.forwarding import FrontendKind
from tests.support.chance import times
from tests.support.work import calls
from tests.unit.plan.make import NODE, addresses, service

SHARED = addresses("203.0.113.1", "203.0.113.2", "192.168.0.1")
KEYS = [ObjectKey("a", name) for name in "wxyz"]
Frontends = set[tuple[bytes, int, Protocol]]


@st.composite
def services(draw: st.DrawFn) -> Service:
    """Which want the same few addresses, as whatever kind."""
    few = st.lists(st.sampled_from(SHARED), max_size=2, unique=True).map(tuple)
    ports = draw(st.lists(st.sampled_from([80, 81, 30080]), min_size=1, max_size=3, unique=True))
    balancer = draw(few)
    return service(
        draw(st.sampled_from(KEYS)),
        created_s=draw(st.integers(1, 3)),
        cluster_ips=draw(few)[:1] or addresses("10.96.0.9"),
        ports=tuple(
            ServicePort(
                f"p{number}",
                draw(st.sampled_from([Protocol.TCP, Protocol.UDP])),
                number,
                draw(st.sampled_from([0, 30080])),
            )
            for number in ports
        ),
        external_ips=draw(few),
        load_balancer=tuple(LoadBalancerIngress(address) for address in balancer),
    )


def settled(services: Iterable[Service]) -> dict[ObjectKey, Frontends]:
    """Whose each address is, found as slowly and plainly as can be."""
    asked = []
    for one in services:
        for port in one.ports:
            wanted = [(FrontendKind.CLUSTER_IP, a, port.port) for a in one.cluster_ips]
            if port.node_port:
                wanted += [
                    (FrontendKind.NODE_PORT, a, port.node_port) for a in NODE.nodeport_addresses
                ]
            wanted += [(FrontendKind.LOAD_BALANCER, i.address, port.port)
                       for i in one.load_balancer]  # fmt: skip
            wanted += [(FrontendKind.EXTERNAL_IP, a, port.port) for a in one.external_ips]
            families = {len(address) for address in one.cluster_ips}
            asked += [
                ((kind, one.created_s, one.key, port.name), (address, number, port.protocol))
                for kind, address, number in wanted
                if len(address) in families
            ]
    result: dict[ObjectKey, Frontends] = {key: set() for key in KEYS}
    given_out: Frontends = set()
    for rank, at in sorted(asked):
        if at not in given_out:
            given_out.add(at)
            result[rank[2]].add(at)
    return result


def planned(cluster: Cluster, key: ObjectKey) -> Frontends:
    return {
        (frontend.address, frontend.port, forwarding.name.protocol)
        for forwarding in cluster.plan(key)
        for frontend in forwarding.frontends
    }


@settings(max_examples=times(400), deadline=None)
@given(st.lists(st.one_of(services(), st.sampled_from(KEYS)), max_size=14))
def test_any_history_gives_each_address_to_the_strongest(
    history: list[Service | ObjectKey],
) -> None:
    cluster, known = Cluster(NODE), dict[ObjectKey, Service]()
    held = settled(())
    for event in history:
        before = settled(known.values())
        if isinstance(event, Service):
            known[event.key] = event
            cluster.set_service(event)
        else:
            known.pop(event, None)
            cluster.delete_service(event)
        after = settled(known.values())
        marked = set(cluster.take_changes())
        assert {key for key in KEYS if before[key] != after[key]} <= marked
        for key in marked:
            held[key] = planned(cluster, key)
        assert held == after
    for key in KEYS:
        told = cluster.problems(key)
        asks = known.get(key)
        alone = settled([asks])[key] if asks else set()
        assert bool(told) == (alone != held[key])
        assert len(told) <= MOST_SENTENCES + 1


def rival(number: int) -> Service:
    """One of many that share an address and port."""
    return service(
        ObjectKey("a", f"s{number:05}"),
        created_s=number,
        cluster_ips=(b"\x0a\x60" + number.to_bytes(2),),
        external_ips=addresses("203.0.113.1"),
        ports=(ServicePort("p", Protocol.TCP, 80),),
    )


def change_and_follow(cluster: Cluster, changed: Service | ObjectKey) -> list[ObjectKey]:
    if isinstance(changed, Service):
        cluster.set_service(changed)
    else:
        cluster.delete_service(changed)
    keys = cluster.take_changes()
    for key in keys:
        cluster.plan(key)
        cluster.problems(key)
    return keys


def shared_by(number: int) -> Cluster:
    cluster = Cluster(NODE)
    cluster.replace_services(map(rival, range(1, number + 1)))
    cluster.take_changes()
    return cluster


def test_a_change_among_a_thousand_rivals_is_as_much_work_as_among_two() -> None:
    few, many = shared_by(2), shared_by(1000)
    loser, winner = rival(2), rival(1)
    more = service(
        loser.key, created_s=2, cluster_ips=loser.cluster_ips, external_ips=loser.external_ips
    )
    work: dict[str, list[int]] = {}
    for cluster in (few, many):
        for what, change in (
            ("a loser's ports", more),
            ("the winner goes", winner.key),
            ("it is back", winner),
        ):
            made = calls(lambda c=cluster, e=change: change_and_follow(c, e))  # type: ignore[misc]
            work.setdefault(what, []).append(made)
    for among_two, among_many in work.values():
        assert among_many <= 1.5 * among_two
    assert len(change_and_follow(many, winner.key)) == 2


def test_the_others_hear_little_by_little_who_has_it_now() -> None:
    cluster = shared_by(1000)
    cluster.take_misinformed(10_000)
    cluster.delete_service(rival(1).key)
    taken = []
    while some := cluster.take_misinformed(300):
        assert len(some) <= 300
        taken += some
    assert sorted(taken) == [rival(number).key for number in range(3, 1001)]
    assert "Service a/s00002 has it" in cluster.problems(taken[-1])[0]
    assert cluster.take_misinformed(300) == []


def test_a_thousand_ports_on_a_hundred_shared_addresses_are_looked_at_a_few_times() -> None:
    """In all: both Services come, are planned, and the loser is told so."""

    def both(addresses_: int, ports: int) -> int:
        shared = tuple(bytes([203, 0, 113, last]) for last in range(addresses_))
        cluster = Cluster(NODE)

        def happen() -> None:
            for created_s in (2, 1):
                change_and_follow(
                    cluster,
                    service(
                        ObjectKey("a", f"s{created_s}"),
                        created_s=created_s,
                        cluster_ips=(bytes([10, 96, 0, created_s]),),
                        external_ips=shared,
                        ports=tuple(
                            ServicePort(f"p{number}", Protocol.TCP, number)
                            for number in range(1, ports + 1)
                        ),
                    ),
                )

        return calls(happen)

    assert both(100, 100) < 100 * 100 * 150
    assert both(40, 100) < 5 * both(20, 40)


def test_who_loses_much_is_told_little() -> None:
    cluster = Cluster(NODE)
    ports = tuple(ServicePort(f"p{n}", Protocol.TCP, n) for n in range(1, 200))
    for created_s in (1, 2):
        cluster.set_service(
            service(
                ObjectKey("a", f"s{created_s}"),
                created_s=created_s,
                cluster_ips=(bytes([10, 96, 0, created_s]),),
                external_ips=addresses("203.0.113.1"),
                ports=ports,
            )
        )
    told = cluster.problems(ObjectKey("a", "s2"))
    assert len(told) == MOST_SENTENCES + 1
    assert told[0].startswith("Service a/s2 does not get 203.0.113.1:1/TCP: Service a/s1 has it")
    assert told[-1] == "Service a/s2 does not get 195 more addresses and ports."

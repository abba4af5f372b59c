"""Which Services are spread by tables, and by which."""

import random
from typing import Any

import pytest

from ebpf_lb.model.endpoints import Endpoint
from ebpf_lb.model.service import Algorithm, TrafficPolicy
from ebpf_lb.plan.cluster import Cluster, NodeView
from ebpf_lb.plan.forwarding import Forwarding, FrontendFlag, Spread, Table
from ebpf_lb.plan.maglev import size_for
from tests.unit.plan.make import (
    NODE,
    NOT_READY,
    WEB,
    a_slice,
    address,
    addresses,
    endpoint,
    service,
)

MAGLEV = Algorithm.MAGLEV


def planned(
    *endpoints: Endpoint, default: Algorithm = Algorithm.RANDOM, node: NodeView = NODE, **of: Any
) -> Forwarding:
    cluster = Cluster(node, default)
    cluster.set_service(service(**of))
    cluster.set_slice(a_slice(*endpoints))
    (forwarding,) = cluster.plan(WEB)
    return forwarding


def pods(number: int, **given: Any) -> list[Endpoint]:
    return [endpoint(f"10.0.{i // 250}.{i % 250 + 1}", **given) for i in range(number)]


@pytest.mark.parametrize(
    ("default", "own", "used"),
    [
        (Algorithm.RANDOM, None, False),
        (Algorithm.RANDOM, Algorithm.MAGLEV, True),
        (Algorithm.MAGLEV, None, True),
        (Algorithm.MAGLEV, Algorithm.RANDOM, False),
    ],
)
def test_by_configuration_or_by_the_service_itself(
    default: Algorithm, own: Algorithm | None, used: bool
) -> None:
    found = planned(*pods(3), default=default, algorithm=own)
    assert found.cluster_table == (Table(size_for(3)) if used else None)
    assert found.local_table is None
    flags = {frontend.flags & FrontendFlag.CONSISTENT for frontend in found.frontends}
    assert flags == {FrontendFlag.CONSISTENT if used else FrontendFlag(0)}
    assert found.without_tables() == planned(*pods(3))
    assert found.algorithm is (Algorithm.MAGLEV if used else Algorithm.RANDOM)


@pytest.mark.parametrize(
    ("algorithm", "equal", "weighted"),
    [
        (Algorithm.RANDOM, None, Table(8, (6, 1, 1), Spread.IN_TURN)),
        (Algorithm.ROUND_ROBIN, None, Table(8, (6, 1, 1), Spread.IN_TURN)),
        (Algorithm.LEAST_CONNECTIONS, None, Table(3, (6, 1, 1), Spread.ONE_EACH)),
        (Algorithm.SOURCE_HASH, Table(size_for(3)), Table(size_for(8), (6, 1, 1))),
        (Algorithm.MAGLEV, Table(size_for(3)), Table(size_for(8), (6, 1, 1))),
    ],
)
@pytest.mark.parametrize("own", [True, False])
def test_each_algorithm_has_its_tables(
    algorithm: Algorithm, equal: Table | None, weighted: Table, own: bool
) -> None:
    how: dict[str, Any] = {"algorithm": algorithm} if own else {"default": algorithm}
    heavy = (address("10.0.0.1"), 6)
    assert planned(*pods(3), **how).cluster_table == equal
    found = planned(*pods(3), **how, weights=(heavy,))
    if not own and algorithm is Algorithm.RANDOM:
        assert found.algorithm is Algorithm.MAGLEV  # weights alone ask for it
        return
    assert (found.algorithm, found.cluster_table) == (algorithm, weighted)
    flags = {bool(frontend.flags & FrontendFlag.CONSISTENT) for frontend in found.frontends}
    assert flags == {algorithm is Algorithm.MAGLEV}
    plain = found.without_tables()
    assert plain.cluster_table is None
    assert plain.algorithm is (Algorithm.RANDOM if algorithm is Algorithm.MAGLEV else algorithm)


def test_slots_in_turn_are_no_more_than_weights_ask_for() -> None:
    heavy = ((address("10.0.0.1"), 60), (address("10.0.0.2"), 20), (address("10.0.0.3"), 20))
    found = planned(*pods(3), algorithm=Algorithm.ROUND_ROBIN, weights=heavy)
    assert found.cluster_table == Table(5, (60, 20, 20), Spread.IN_TURN)


def test_one_backend_needs_no_table() -> None:
    assert planned(*pods(1), algorithm=MAGLEV).cluster_table is None
    assert planned(algorithm=MAGLEV).cluster_table is None


def test_the_local_set_has_a_table_of_its_own() -> None:
    here = [endpoint(f"10.0.9.{number}", node="node1") for number in (1, 2, 3)]
    found = planned(*pods(30), *here, algorithm=MAGLEV, internal_policy=TrafficPolicy.LOCAL)
    assert (found.cluster_table, found.local_table) == (None, Table(size_for(3)))
    found = planned(
        *pods(30), *here, algorithm=MAGLEV, internal_policy=TrafficPolicy.LOCAL,
        external_ips=addresses("192.0.2.1"),
    )  # fmt: skip
    assert (found.cluster_table, found.local_table) == (Table(size_for(33)), Table(size_for(3)))


def test_what_comes_and_goes_with_a_probe_changes_no_size() -> None:
    all_ready = planned(*pods(18), algorithm=MAGLEV).cluster_table
    two_not = planned(
        *pods(16), endpoint("10.0.3.1", NOT_READY), endpoint("10.0.3.2", NOT_READY),
        algorithm=MAGLEV,
    )  # fmt: skip
    assert len(two_not.cluster) == 16
    assert two_not.cluster_table == all_ready == Table(size_for(18))
    assert size_for(18) != size_for(16)


def test_every_node_and_every_order_gives_the_same_table() -> None:
    endpoints = [*pods(20), *[endpoint(f"10.0.9.{n}", node="node1") for n in range(1, 9)]]
    weights = (("node1", 3), (address("10.0.0.7"), 2))
    first = planned(*endpoints, weights=weights, algorithm=MAGLEV)
    shuffled = [*endpoints]
    random.Random(1).shuffle(shuffled)
    other = planned(*shuffled, weights=weights, algorithm=MAGLEV, node=NodeView("node2", "b", ()))
    assert first.cluster_table == other.cluster_table
    assert [b[:2] for b in first.cluster] == [b[:2] for b in other.cluster]


def test_weights_by_address_before_those_by_node() -> None:
    found = planned(
        endpoint("10.0.0.1", node="a"), endpoint("10.0.0.2", node="a"),
        endpoint("10.0.0.3", node="b"), endpoint("10.0.0.4", node=""),
        algorithm=MAGLEV, weights=(("a", 4), (address("10.0.0.2"), 7), ("c", 9)),
    )  # fmt: skip
    # by the least weight there are 13 shares
    assert found.cluster_table == Table(size_for(13), (4, 7, 1, 1))


def test_equal_weights_are_none() -> None:
    found = planned(*pods(3, node="a"), algorithm=MAGLEV, weights=(("a", 9),))
    assert found.cluster_table == Table(size_for(3))

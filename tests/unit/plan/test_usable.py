"""Usable endpoints, docs/semantics.md: one line of the table for each rule."""

from typing import NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ebpf_lb.model.endpoints import Endpoint, EndpointSlice
from ebpf_lb.model.values import Protocol
from ebpf_lb.plan.usable import places, plain, usable
from tests.unit.plan.make import (
    DEAD,
    DRAINING,
    NOT_READY,
    PUBLISHED_NOT_READY,
    SERVING_NOT_READY,
    a_slice,
    endpoint,
    spelled,
)

A, B, C = "10.0.0.1", "10.0.0.2", "10.0.0.3"


class Rule(NamedTuple):
    rule: str
    endpoints: list[Endpoint]
    cluster: list[str]
    local: list[str]
    has_any: bool = True


def on_node(where: str, conditions: int = 3) -> Endpoint:
    return endpoint(where, conditions, "node1")


RULES = [
    Rule("no endpoint", [], [], [], False),
    Rule("ready ones are used", [endpoint(A), endpoint(B)], [A, B], []),
    Rule("not ready ones are not", [endpoint(A), endpoint(B, NOT_READY)], [A], []),
    Rule("not even if serving", [endpoint(A, SERVING_NOT_READY)], [], [], False),
    Rule("nor if it is the last and neither serving", [endpoint(A, DEAD)], [], [], False),
    Rule("draining ones are not while one is ready", [endpoint(A), endpoint(B, DRAINING)], [A], []),
    Rule("draining ones are, if none is ready", [endpoint(A, DRAINING)], [A], []),
    Rule(
        "publishNotReadyAddresses: ready while terminating is ready",
        [endpoint(A, PUBLISHED_NOT_READY), endpoint(B, DRAINING)],
        [A],
        [],
    ),
    Rule("local: nodeName is this node", [on_node(A), endpoint(B)], ["10.0.0.1*", B], [A + "*"]),
    Rule("no nodeName is not local", [endpoint(A, node="")], [A], []),
    Rule(
        "the local set falls back alone",
        [on_node(A, DRAINING), endpoint(B)],
        [B],
        [A + "*"],
    ),
    Rule(
        "the cluster set does not fall back for the local one's sake",
        [on_node(A, DRAINING), on_node(B, DEAD), endpoint(C)],
        [C],
        [A + "*"],
    ),
    Rule(
        "both fall back together",
        [on_node(A, DRAINING), endpoint(B, DRAINING)],
        [A + "*", B],
        [A + "*"],
    ),
    Rule(
        "zone hints, where every ready endpoint has one and one names our zone",
        [endpoint(A, zones="a"), endpoint(B, zones="b"), endpoint(C, zones="b a")],
        [A, C],
        [],
    ),
    Rule(
        "no zone hints if a ready endpoint has none",
        [endpoint(A, zones="a"), endpoint(B)],
        [A, B],
        [],
    ),
    Rule(
        "also if that is the first",
        [endpoint(A), endpoint(B, zones="a")],
        [A, B],
        [],
    ),
    Rule(
        "hints missing on endpoints that are not ready do not matter",
        [endpoint(A, zones="a"), endpoint(B, zones="b"), endpoint(C, NOT_READY)],
        [A],
        [],
    ),
    Rule(
        "nor on draining ones",
        [endpoint(A, zones="a"), endpoint(B, zones="b"), endpoint(C, DRAINING)],
        [A],
        [],
    ),
    Rule(
        "no zone hints if none names our zone",
        [endpoint(A, zones="b"), endpoint(B, zones="c")],
        [A, B],
        [],
    ),
    Rule(
        "node hints come before zone hints",
        [endpoint(A, zones="a", nodes="node2"), endpoint(B, zones="b", nodes="node1")],
        [B],
        [],
    ),
    Rule(
        "zone hints if no node hint names us",
        [endpoint(A, zones="a", nodes="node2"), endpoint(B, zones="b", nodes="node3")],
        [A],
        [],
    ),
    Rule(
        "zone hints if a ready endpoint lacks a node hint",
        [endpoint(A, zones="a", nodes="node1"), endpoint(B, zones="b")],
        [A],
        [],
    ),
    Rule(
        "topology never applies to the local set",
        [endpoint(A, 3, "node1", zones="b"), endpoint(B, zones="a")],
        [B],
        [A + "*"],
    ),
    Rule(
        "topology never applies to draining ones",
        [endpoint(A, DRAINING, zones="b"), endpoint(B, DRAINING, zones="a")],
        [A, B],
        [],
    ),
]


def answer(
    slices: list[EndpointSlice], zone: str = "a", port: str = "http", **uses: bool
) -> tuple[list[str], list[str], bool]:
    uses = {"uses_cluster": True, "uses_local": True, **uses}
    found = usable(places(slices, port, Protocol.TCP, "node1"), "node1", zone, **uses)
    return spelled(found.cluster), spelled(found.local), found.has_any


def numbered(texts: list[str]) -> list[str]:
    return [f"{t[:-1]}:8080*" if t.endswith("*") else f"{t}:8080" for t in texts]


@pytest.mark.rule("EP-5", "EP-8", "EP-9", "EP-10", "EP-11", "EP-12", "EP-13", "KI-5")
@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.rule)
def test_rule(rule: Rule) -> None:
    expected = numbered(rule.cluster), numbered(rule.local), rule.has_any
    assert answer([a_slice(*rule.endpoints)]) == expected
    each = [a_slice(e, name=f"web-{i}") for i, e in enumerate(rule.endpoints)]
    assert answer(each) == answer(each[::-1]) == expected  # however the slices are cut


def test_a_node_without_zone_has_no_zone_hints() -> None:
    hinted = [a_slice(endpoint(A, zones="a"), endpoint(B, zones="b"))]
    assert answer(hinted, zone="")[0] == [f"{A}:8080", f"{B}:8080"]


@pytest.mark.rule("EP-7", "EP-10")
def test_a_set_that_is_not_used_is_empty_and_has_any_does_not_depend_on_it() -> None:
    slices = [a_slice(endpoint(A), endpoint(B, 3, "node1"))]
    assert answer(slices, uses_cluster=False) == ([], [f"{B}:8080*"], True)
    assert answer(slices, uses_local=False) == ([f"{A}:8080", f"{B}:8080*"], [], True)
    elsewhere = [a_slice(endpoint(A))]
    assert answer(elsewhere, uses_cluster=False) == ([], [], True)


@pytest.mark.rule("EP-6")
@pytest.mark.parametrize(
    ("one", "other", "cluster"),
    [
        (endpoint(A), endpoint(A, DRAINING), [f"{A}:8080"]),
        (endpoint(A, PUBLISHED_NOT_READY), endpoint(A, NOT_READY), []),
        (endpoint(A, NOT_READY), endpoint(A), [f"{A}:8080"]),
        (endpoint(A), endpoint(A, node="node1"), [f"{A}:8080*"]),
    ],
    ids=["not terminating wins", "even if not ready", "then ready", "then local"],
)
def test_duplicates_over_slices(one: Endpoint, other: Endpoint, cluster: list[str]) -> None:
    first, second = a_slice(one, name="x"), a_slice(other, name="y")
    assert answer([first, second])[0] == answer([second, first])[0] == cluster


@pytest.mark.rule("KI-6")
def test_named_ports_that_differ_per_slice() -> None:
    slices = [
        a_slice(endpoint(A), endpoint(B), ports=(("http", 8080), ("admin", 9000))),
        a_slice(endpoint(C), name="new", ports=(("http", 8081),)),
        a_slice(endpoint(A), name="both", ports=(("http", 8082),)),
    ]
    assert answer(slices)[0] == [f"{A}:8080", f"{A}:8082", f"{B}:8080", f"{C}:8081"]
    assert answer(slices, port="admin")[0] == [f"{A}:9000", f"{B}:9000"]
    assert answer(slices, port="")[0] == []


def test_the_same_port_name_of_another_protocol_is_another_port() -> None:
    slices = [
        a_slice(endpoint(A), ports=(("dns", 53),), protocol=Protocol.UDP),
        a_slice(endpoint(B), name="tcp", ports=(("dns", 5353),)),
    ]
    assert answer(slices, port="dns")[0] == [f"{B}:5353"]


@given(
    st.lists(
        st.lists(
            st.builds(
                endpoint,
                st.sampled_from([A, B, C, "10.0.0.4"]),
                st.sampled_from([3, 3, 3, 3, NOT_READY, DRAINING]),
                st.sampled_from(["node1", "node2", ""]),
                nodes=st.sampled_from(["", "", "", "node1"]),
            ),
            max_size=4,
        ),
        max_size=3,
    )
)
def test_the_short_way_of_the_plain_case_is_the_long_one(parts: list[list[Endpoint]]) -> None:
    slices = [a_slice(*part, name=f"web-{number}") for number, part in enumerate(parts)]
    short = plain(slices, "http", Protocol.TCP, "node1")
    odd = any(one.conditions != 3 or any(one.hints) for part in parts for one in part)
    assert (short is None) == odd
    if short is not None:
        found = places(slices, "http", Protocol.TCP, "node1")
        long = usable(found, "node1", "a", uses_cluster=True, uses_local=True)
        assert short == long.cluster
        assert tuple(one for one in short if one.local) == long.local
        assert bool(short) == long.has_any

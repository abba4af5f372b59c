"""A plan follows from what is known, not from how it became known; little is planned again."""

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ebpf_lb.model.endpoints import EndpointSlice
from ebpf_lb.model.key import ObjectKey
from ebpf_lb.model.service import (
    LoadBalancerIngress,
    Service,
    ServicePort,
    ServiceType,
    TrafficPolicy,
)
from ebpf_lb.model.values import Protocol, parse_network
from ebpf_lb.plan.cluster import Cluster, NodeView
from ebpf_lb.plan.forwarding import Forwarding
from ebpf_lb.plan.health import HealthCheck as Health
from tests.support.chance import times
from tests.unit.plan.make import (
    DRAINING,
    NODE,
    NOT_READY,
    READY_ONE,
    WEB,
    a_slice,
    address,
    addresses,
    endpoint,
    service,
    spelled,
)

OTHER = ObjectKey("default", "other")
NODE_PORT = (ServicePort("http", Protocol.TCP, 80, 30080),)


def test_a_change_of_a_slice_plans_its_service_alone() -> None:
    cluster = Cluster(NODE)
    cluster.replace_services([service(), service(OTHER, cluster_ips=addresses("10.96.0.2"))])
    assert sorted(cluster.take_changes()) == [OTHER, WEB]
    assert cluster.take_changes() == []
    cluster.set_slice(a_slice(endpoint("10.0.0.1")))
    cluster.set_slice(a_slice(endpoint("10.0.0.2")))
    assert cluster.take_changes() == [WEB]  # coalesced
    assert spelled(cluster.plan(WEB)[0].cluster) == ["10.0.0.2:8080"]


def test_what_changes_nothing_marks_nothing() -> None:
    cluster = Cluster(NODE)
    cluster.set_service(service())
    cluster.set_slice(a_slice(endpoint("10.0.0.1")))
    cluster.take_changes()
    cluster.set_service(service())
    cluster.set_slice(a_slice(endpoint("10.0.0.1")))
    cluster.delete_slice(ObjectKey("default", "unknown"))
    cluster.delete_service(OTHER)
    cluster.set_slice(a_slice(endpoint("10.0.0.9"), name="stray", service=OTHER))
    cluster.set_node(NODE)
    assert cluster.take_changes() == []


def test_a_slice_that_goes_to_another_service_changes_both() -> None:
    cluster = Cluster(NODE)
    cluster.replace_services([service(), service(OTHER, cluster_ips=addresses("10.96.0.2"))])
    cluster.set_slice(a_slice(endpoint("10.0.0.1")))
    cluster.take_changes()
    cluster.set_slice(a_slice(endpoint("10.0.0.1"), service=OTHER))
    assert sorted(cluster.take_changes()) == [OTHER, WEB]
    assert not cluster.plan(WEB)[0].has_any and cluster.plan(OTHER)[0].has_any


def test_slices_may_come_before_their_service() -> None:
    cluster = Cluster(NODE)
    cluster.set_slice(a_slice(endpoint("10.0.0.1")))
    assert cluster.take_changes() == [] and cluster.plan(WEB) == ()
    cluster.set_service(service())
    assert cluster.take_changes() == [WEB] and cluster.plan(WEB)[0].has_any


def test_a_complete_list_removes_what_is_absent() -> None:
    cluster = Cluster(NODE)
    cluster.replace_services([service(), service(OTHER, cluster_ips=addresses("10.96.0.2"))])
    cluster.replace_slices([a_slice(endpoint("10.0.0.1")), a_slice(endpoint("10.0.0.2"), name="b")])
    cluster.take_changes()
    cluster.replace_slices([a_slice(endpoint("10.0.0.2"), name="b")])
    assert cluster.take_changes() == [WEB]
    assert spelled(cluster.plan(WEB)[0].cluster) == ["10.0.0.2:8080"]
    cluster.replace_services([service()])
    assert cluster.take_changes() == [OTHER]
    assert list(cluster.keys()) == [WEB] and cluster.plan(OTHER) == ()


def test_the_slices_of_an_endpoints_object_are_replaced_together() -> None:
    cluster = Cluster(NODE)
    cluster.set_service(service())
    one, two = a_slice(endpoint("10.0.0.1")), a_slice(endpoint("10.0.0.2"), name="b")
    cluster.set_slices(WEB, [one, two])
    assert len(cluster.plan(WEB)[0].cluster) == 2
    cluster.take_changes()
    cluster.set_slices(WEB, [one, two])
    assert cluster.take_changes() == []
    cluster.set_slices(WEB, [two])
    assert spelled(cluster.plan(WEB)[0].cluster) == ["10.0.0.2:8080"]
    cluster.set_slices(WEB, [])
    assert not cluster.plan(WEB)[0].has_any


@pytest.mark.parametrize(
    ("node", "changed"),
    [
        (NodeView("node9", "a", NODE.nodeport_addresses), ["guarded", "hinted", "ported", "web"]),
        (NodeView("node1", "b", NODE.nodeport_addresses), ["hinted"]),
        (NodeView("node1", "a", addresses("192.168.0.2")), ["ported"]),
        (NodeView("node1", "a", NODE.nodeport_addresses, addresses("192.168.0.1")), ["guarded"]),
    ],
    ids=["name", "zone", "node port addresses", "own addresses"],
)
def test_a_change_of_the_node_marks_who_depends_on_it(node: NodeView, changed: list[str]) -> None:
    cluster = Cluster(NODE)
    cluster.set_service(service())
    cluster.set_service(
        service(ObjectKey("d", "ported"), cluster_ips=addresses("10.96.0.2"), ports=NODE_PORT)
    )
    hinted = ObjectKey("d", "hinted")
    cluster.set_service(service(hinted, cluster_ips=addresses("10.96.0.3")))
    guarded = service(
        ObjectKey("d", "guarded"),
        cluster_ips=addresses("10.96.0.4"),
        load_balancer=(LoadBalancerIngress(address("203.0.113.1")),),
        source_ranges=(parse_network("192.168.0.0/16"),),
    )
    cluster.set_service(guarded)
    cluster.set_slice(a_slice(endpoint("10.0.0.1", zones="a"), service=hinted))
    cluster.take_changes()
    cluster.set_node(node)
    assert sorted(key.name for key in cluster.take_changes()) == changed


def test_a_node_address_that_appears_settles_clashes_anew() -> None:
    cluster = Cluster(NodeView("node1", "", ()))
    cluster.set_service(service(ports=NODE_PORT))
    squatter = service(
        OTHER,
        cluster_ips=addresses("10.96.0.2"),
        external_ips=addresses("192.168.0.1"),
        ports=(ServicePort("x", Protocol.TCP, 30080),),
    )
    cluster.set_service(squatter)
    assert len(cluster.plan(OTHER)[0].frontends) == 2
    cluster.take_changes()
    cluster.set_node(NODE)
    assert sorted(cluster.take_changes()) == [OTHER, WEB]
    assert len(cluster.plan(OTHER)[0].frontends) == 1
    assert len(cluster.plan(WEB)[0].frontends) == 2


@pytest.mark.rule("HE-3")
def test_health_checks_count_ready_local_pods_once() -> None:
    cluster = Cluster(NODE)
    checked = service(
        type=ServiceType.LOAD_BALANCER,
        external_policy=TrafficPolicy.LOCAL,
        health_check_node_port=32000,
        cluster_ips=addresses("10.96.0.1", "fd00:96::1"),
    )
    cluster.set_service(checked)
    assert cluster.health_checks(WEB) == (Health(WEB, 32000, 0),)
    cluster.set_slice(
        a_slice(
            endpoint("10.0.0.1", node="node1"),
            endpoint("10.0.0.2", node="node2"),
            endpoint("10.0.0.3", DRAINING, "node1"),
            endpoint("10.0.0.4", NOT_READY, "node1"),
        )
    )
    cluster.set_slice(a_slice(endpoint("10.0.0.1", node="node1"), name="again"))
    cluster.set_slice(a_slice(endpoint("fd00::1", node="node1"), name="six"))
    assert cluster.health_checks(WEB) == (Health(WEB, 32000, 1),)
    cluster.set_service(service(type=ServiceType.LOAD_BALANCER, health_check_node_port=32000))
    assert cluster.health_checks(WEB) == ()


# any order of events

KEYS = [ObjectKey(namespace, name) for namespace in ("a", "b") for name in ("x", "y")]
NODES = [
    NODE,
    NodeView("node2", "b", addresses("192.168.0.2")),
    NodeView("node1", "b", NODE.nodeport_addresses, addresses("192.168.0.1")),
]


@st.composite
def services(draw: st.DrawFn) -> Service:
    key = draw(st.sampled_from(KEYS))
    return service(
        key,
        created_s=draw(st.integers(0, 2)),
        type=draw(st.sampled_from([ServiceType.CLUSTER_IP] * 4 + [ServiceType.EXTERNAL_NAME])),
        cluster_ips=draw(
            st.sampled_from([addresses("10.96.0.1", "fd00:96::1"), addresses("10.96.0.2"), ()])
        ),
        ports=draw(
            st.sampled_from(
                [NODE_PORT, (ServicePort("http", Protocol.TCP, 30080),), (*NODE_PORT,
                 ServicePort("dns", Protocol.UDP, 80))]
            )
        ),
        external_ips=draw(
            st.sampled_from([(), addresses("203.0.113.1"), addresses("192.168.0.1")])
        ),
        load_balancer=draw(
            st.sampled_from([(), (LoadBalancerIngress(address("203.0.113.1")),)])
        ),
        external_policy=draw(st.sampled_from(TrafficPolicy)),
        source_ranges=draw(st.sampled_from([None, (parse_network("192.168.0.0/16"),)])),
    )  # fmt: skip


@st.composite
def slices(draw: st.DrawFn) -> EndpointSlice:
    return a_slice(
        *(
            endpoint(
                f"10.0.0.{number}",
                draw(st.sampled_from([READY_ONE, DRAINING, NOT_READY])),
                draw(st.sampled_from(["node1", "node2"])),
                zones=draw(st.sampled_from(["", "a", "b"])),
            )
            for number in draw(st.lists(st.integers(1, 4), max_size=3, unique=True))
        ),
        name=draw(st.sampled_from(["s1", "s2", "s3"])),
        service=draw(st.sampled_from(KEYS)),
        ports=draw(st.sampled_from([(("http", 8080),), (("http", 8081), ("dns", 53))])),
    )


class World:
    """The plain truth, and a Cluster that is told of it event by event."""

    def __init__(self) -> None:
        self.services: dict[ObjectKey, Service] = {}
        self.slices: dict[ObjectKey, EndpointSlice] = {}
        self.node = NODE
        self.cluster = Cluster(NODE)
        self.plans: dict[ObjectKey, tuple[Forwarding, ...]] = {}

    def happen(self, event: tuple[str, Any]) -> None:
        kind, value = event
        if kind == "service":
            self.services[value.key] = value
            self.cluster.set_service(value)
        elif kind == "slice":
            self.slices[value.key] = value
            self.cluster.set_slice(value)
        elif kind == "no service":
            self.services.pop(value, None)
            self.cluster.delete_service(value)
        elif kind == "no slice":
            self.slices.pop(value, None)
            self.cluster.delete_slice(value)
        elif kind == "services":
            self.services = {each.key: each for each in value}
            self.cluster.replace_services(value)
        elif kind == "slices":
            self.slices = {each.key: each for each in value}
            self.cluster.replace_slices(value)
        else:
            self.node = value
            self.cluster.set_node(value)

    def follow(self) -> None:
        """What an agent does: plan again what is said to have changed, and nothing else."""
        for key in self.cluster.take_changes():
            self.plans[key] = self.cluster.plan(key)

    def from_scratch(self) -> dict[ObjectKey, tuple[Forwarding, ...]]:
        fresh = Cluster(self.node)
        for a_service in self.services.values():
            fresh.set_service(a_service)
        for each in self.slices.values():
            fresh.set_slice(each)
        return {key: fresh.plan(key) for key in KEYS}


EVENTS = st.lists(
    st.one_of(
        st.tuples(st.just("service"), services()),
        st.tuples(st.just("slice"), slices()),
        st.tuples(st.just("no service"), st.sampled_from(KEYS)),
        st.tuples(
            st.just("no slice"),
            st.builds(ObjectKey, st.sampled_from(["a", "b"]), st.sampled_from(["s1", "s2"])),
        ),
        st.tuples(st.just("services"), st.lists(services(), max_size=3)),
        st.tuples(st.just("slices"), st.lists(slices(), max_size=3)),
        st.tuples(st.just("node"), st.sampled_from(NODES)),
        st.just(("follow", None)),
    ),
    max_size=20,
)
quick: Callable[..., Any] = settings(
    max_examples=times(300), deadline=None, suppress_health_check=list(HealthCheck)
)


def lived(events: list[tuple[str, Any]]) -> World:
    world = World()
    for event in events:
        if event[0] == "follow":
            world.follow()
        else:
            world.happen(event)
    world.follow()
    return world


@quick
@given(EVENTS)
def test_any_history_ends_in_the_plans_of_its_outcome(events: list[tuple[str, Any]]) -> None:
    """Also for those Services that were not said to have changed: their old plan still holds."""
    world = lived(events)
    assert {key: world.plans.get(key, ()) for key in KEYS} == world.from_scratch()


@quick
@given(EVENTS)
def test_no_place_is_given_to_two(events: list[tuple[str, Any]]) -> None:
    given_out = [
        (frontend.address, frontend.port, forwarding.name.protocol)
        for plan in lived(events).plans.values()
        for forwarding in plan
        for frontend in forwarding.frontends
    ]
    assert len(given_out) == len(set(given_out))


@quick
@given(EVENTS)
def test_plans_are_sorted_and_free_of_duplicates(events: list[tuple[str, Any]]) -> None:
    for plan in lived(events).plans.values():
        assert [(f.name, f.family) for f in plan] == sorted({(f.name, f.family) for f in plan})
        for forwarding in plan:
            for values in (forwarding.frontends, forwarding.cluster, forwarding.local):
                assert list(values) == sorted(set(values))


@quick
@given(EVENTS)
def test_deleting_everything_leaves_nothing(events: list[tuple[str, Any]]) -> None:
    world = lived(events)
    for key in KEYS:
        world.happen(("no service", key))
    for key in list(world.slices):
        world.happen(("no slice", key))
    world.follow()
    assert all(plan == () for plan in world.plans.values())
    settings = ("_node", "_algorithm", "_critical")
    held = [value for name, value in vars(world.cluster).items() if name not in settings]
    assert all(not value for value in held)

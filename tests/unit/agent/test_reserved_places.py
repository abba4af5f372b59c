"""The way to the API server, the kubelet's port and our own are kept from Services."""

import pytest

from ebpf_lb.agent.inbox import ServerMoved
from ebpf_lb.kube.resources import SERVICES, node
from ebpf_lb.kube.watch import Changed, Listed
from ebpf_lb.model.key import ObjectKey
from ebpf_lb.model.node import Node
from ebpf_lb.model.values import format_endpoint, parse_address
from ebpf_lb.plan.cluster import NodeView
from tests.unit.agent.fakes import Agent

ENDS = frozenset({(parse_address("192.0.2.1"), 6443), (parse_address("2001:db8::1"), 6443)})


@pytest.fixture
def views(monkeypatch: pytest.MonkeyPatch) -> list[NodeView]:
    """What the cluster's plans get to know of this node."""
    from ebpf_lb.plan.cluster import Cluster

    seen: list[NodeView] = []
    before = Cluster.set_node

    def set_node(cluster: Cluster, view: NodeView) -> None:
        seen.append(view)
        before(cluster, view)

    monkeypatch.setattr(Cluster, "set_node", set_node)
    return seen


def places(view: NodeView) -> set[str]:
    return {format_endpoint(one.address, one.port) for one in view.reserved}


@pytest.mark.rule("CP-5")
def test_a_server_that_moves_is_made_way_for_before_anything_is_listed(
    views: list[NodeView],
) -> None:
    """The list can only come when the way is free."""
    agent = Agent()
    agent.tell(ServerMoved(ENDS))
    [vacated] = agent.vacated
    assert {(one.address, one.port) for one in vacated} == ENDS
    assert {"192.0.2.1:6443", "[2001:db8::1]:6443"} <= places(views[-1])
    assert not agent.loop.complete


def test_the_kubelets_port_is_known_with_the_node(views: list[NodeView]) -> None:
    agent = Agent()
    agent.tell(Listed(SERVICES, ()))
    assert not any(place.endswith(":10250") for place in places(views[-1]))
    us = Node("node1", kubelet_port=10250)
    agent.tell(Changed(node("node1"), us, ObjectKey("", "node1")))
    assert {"172.30.0.11:10250", "10.244.1.1:10250"} <= places(views[-1])


def test_where_we_are_probed_on_every_address(views: list[NodeView]) -> None:
    Agent()
    assert {"172.30.0.11:10256", "10.244.1.1:10256"} <= places(views[-1])
    Agent(healthz_bind_address=None)
    assert not any(place.endswith(":10256") for place in places(views[-1]))

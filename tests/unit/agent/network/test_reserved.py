"""What no Service gets on a node."""

from ebpf_lb.agent.network.reserved import of_node, of_server
from ebpf_lb.model.values import Protocol, format_endpoint, parse_address
from ebpf_lb.plan.reserved import HEALTH, KUBELET, Reserved

OWN = [parse_address(text) for text in ("172.30.0.11", "fd00:30::11", "127.0.0.1")]


def shown(found: frozenset[Reserved]) -> dict[str, str]:
    return {format_endpoint(one.address, one.port): one.what for one in found}


def test_the_server_by_tcp() -> None:
    [one] = of_server([(parse_address("192.0.2.1"), 6443)])
    assert one == Reserved(parse_address("192.0.2.1"), 6443, Protocol.TCP, "the API server")
    assert of_server([]) == frozenset()


def test_the_kubelets_port_on_every_address_of_the_node() -> None:
    assert shown(of_node(OWN, 10250, ())) == {
        "172.30.0.11:10250": KUBELET,
        "[fd00:30::11]:10250": KUBELET,
        "127.0.0.1:10250": KUBELET,
    }


def test_where_we_listen_ourselves() -> None:
    assert shown(of_node(OWN, 0, [("0.0.0.0", 10256), None, ("127.0.0.1", 10249)])) == {
        "172.30.0.11:10256": HEALTH,
        "[fd00:30::11]:10256": HEALTH,
        "127.0.0.1:10256": HEALTH,
        "127.0.0.1:10249": HEALTH,
    }
    assert shown(of_node(OWN, 0, [("::", 10256)])).keys() == {
        "172.30.0.11:10256", "[fd00:30::11]:10256", "127.0.0.1:10256"
    }  # fmt: skip
    assert shown(of_node(OWN, 0, [("localhost", 1)])).keys() == {"127.0.0.1:1", "[::1]:1"}
    assert of_node(OWN, 0, [("name.example", 1)]) == frozenset()

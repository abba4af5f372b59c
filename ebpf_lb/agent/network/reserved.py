"""What no Service gets on this node: the API server's address, and ports of the node that it lives
by. Pure.
"""

from collections.abc import Iterable, Iterator

from ebpf_lb.model.values import Protocol, parse_address
from ebpf_lb.plan.reserved import API_SERVER, HEALTH, KUBELET, Reserved

_LOOPBACK = (parse_address("127.0.0.1"), parse_address("::1"))
_UNSPECIFIED = frozenset({bytes(4), bytes(16)})


def of_server(ends: Iterable[tuple[bytes, int]]) -> frozenset[Reserved]:
    """`ends`: addresses and ports by which the API server is reached."""
    return frozenset(Reserved(*end, Protocol.TCP, API_SERVER) for end in ends)


def of_node(
    addresses: Iterable[bytes], kubelet_port: int, served: Iterable[tuple[str, int] | None]
) -> frozenset[Reserved]:
    """`addresses`: the node's own. `kubelet_port`: 0 while unknown. `served`: where we listen
    ourselves, None for nowhere: a probe that reached a Service instead would have us killed."""
    own = tuple(addresses)
    found = set(_on_all(own, kubelet_port, KUBELET))
    for host, port in filter(None, served):
        found.update(_on_all(_addresses(host, own), port, HEALTH))
    return frozenset(found)


def _addresses(host: str, own: tuple[bytes, ...]) -> tuple[bytes, ...]:
    if host == "localhost":
        return _LOOPBACK
    try:
        address = parse_address(host)
    except ValueError:
        return ()  # a name, and then hardly one that a Service could have
    return own if address in _UNSPECIFIED else (address,)


def _on_all(addresses: Iterable[bytes], port: int, what: str) -> Iterator[Reserved]:
    if port:
        for address in addresses:
            yield Reserved(address, port, Protocol.TCP, what)

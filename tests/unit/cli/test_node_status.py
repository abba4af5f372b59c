"""What the agent says of packets' ways, as commands read it."""

from typing import Any

import pytest

from ebpf_lb.cli import node_status

AGENT = ("127.0.0.1", 10249)
XDP = {"mode": "auto", "interfaces": {"eth0": {"mode": "native"}, "eth1": {"mode": "tc"}}}


@pytest.mark.parametrize(
    ("config", "status", "expected"),
    [
        (None, None, node_status.Ways()),
        ({"ebpf-lb.io": {"hostRouting": "bpf"}}, {}, node_status.Ways(host_routing=True)),
        (
            {"ebpf-lb.io": {"hostRouting": "stack"}},
            {"xdp": XDP},
            node_status.Ways(xdp=frozenset({"eth0"})),
        ),
    ],
)
def test_ways(
    monkeypatch: pytest.MonkeyPatch, config: Any, status: Any, expected: node_status.Ways
) -> None:
    def ask(address: tuple[str, int], path: str = "/status") -> Any:
        return config if path == "/configz" else status

    monkeypatch.setattr(node_status, "_ask", ask)
    assert node_status.ways(AGENT) == expected


def test_xdp_of_each_interface() -> None:
    assert node_status.xdp_modes({"xdp": XDP}) == {"eth0": "native", "eth1": "tc"}
    assert node_status.xdp_modes({}) == {}

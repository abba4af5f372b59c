"""Addresses, networks, packed slices."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ebpf_lb.model.endpoints import (
    READY,
    SERVING,
    TERMINATING,
    Endpoint,
    EndpointPort,
    EndpointSlice,
    Hints,
)
from ebpf_lb.model.key import ObjectKey
from ebpf_lb.model.node import Node
from ebpf_lb.model.values import (
    Family,
    Protocol,
    format_address,
    format_endpoint,
    parse_address,
    parse_network,
)


@pytest.mark.parametrize(
    ("text", "packed"),
    [
        ("10.0.0.1", b"\x0a\x00\x00\x01"),
        ("::1", bytes(15) + b"\x01"),
        ("fd00::a:1", b"\xfd" + bytes(12) + b"\x0a\x00\x01"),
    ],
)
def test_addresses(text: str, packed: bytes) -> None:
    assert parse_address(text) == packed
    assert format_address(packed) == text


@pytest.mark.parametrize(
    "text",
    ["", "10.0.0", "10.0.0.256", "010.0.0.1", "10.0.0.1 ", "fe80::1%eth0", "10.0.0.1/32", "web",
     "10.0.0.1\0", "::g", "1"],
)  # fmt: skip
def test_no_addresses(text: str) -> None:
    with pytest.raises(ValueError):
        parse_address(text)


@given(st.ip_addresses())
def test_every_address_is_read_as_the_standard_library_reads_it(address: object) -> None:
    assert format_address(parse_address(str(address))) == str(address)


def test_networks() -> None:
    network = parse_network(" 10.1.2.3/16 ")
    assert str(network) == "10.1.0.0/16"
    assert parse_address("10.1.255.1") in network
    assert parse_address("10.2.0.1") not in network
    assert parse_address("::1") not in network
    assert parse_address("::1") in parse_network("::/0")


def test_how_endpoints_are_shown() -> None:
    assert format_endpoint(parse_address("10.0.0.1"), 80) == "10.0.0.1:80"
    assert format_endpoint(parse_address("fd00::1"), 80) == "[fd00::1]:80"
    assert str(ObjectKey("default", "web")) == "default/web"
    assert str(ObjectKey("", "node1")) == "node1"


endpoints = st.builds(
    Endpoint,
    st.binary(min_size=4, max_size=4),
    st.integers(0, READY | SERVING | TERMINATING),
    st.sampled_from(["", "node1", "node2"]),
    st.builds(
        Hints,
        st.lists(st.sampled_from("ab")).map(tuple),
        st.lists(st.sampled_from("cd")).map(tuple),
    ),
)


@given(st.lists(endpoints))
def test_a_slice_unfolds_to_what_was_packed(given_endpoints: list[Endpoint]) -> None:
    key = ObjectKey("default", "web-1")
    ports = (EndpointPort("http", Protocol.TCP, 80), EndpointPort("dns", Protocol.UDP, 53))
    packed = EndpointSlice.of(key, key, Family.IPV4, ports, given_endpoints)
    assert list(packed.endpoints()) == given_endpoints
    assert packed.port("dns", Protocol.UDP) == 53
    assert packed.port("dns", Protocol.TCP) == packed.port("", Protocol.UDP) == 0


@pytest.mark.rule("HE-5")
def test_a_node_that_goes_is_not_eligible() -> None:
    assert Node("node1").eligible
    assert Node("node1", taints=frozenset({"node.kubernetes.io/not-ready"})).eligible
    assert not Node("node1", taints=frozenset({"ToBeDeletedByClusterAutoscaler"})).eligible
    assert not Node("node1", deleting=True).eligible

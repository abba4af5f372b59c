"""EndpointSlices and Endpoints to the same values: bad items refused one by one."""

import pytest

from ebpf_lb.kube.parse import (
    parse_endpoints,
    parse_slice,
)
from ebpf_lb.model.endpoints import NO_HINTS, EndpointPort, Hints
from ebpf_lb.model.key import ObjectKey
from ebpf_lb.model.values import Family, Protocol, format_address
from tests.unit.kube.raw import META, a_slice


@pytest.mark.rule("EP-2", "EP-3")
def test_a_slice() -> None:
    parsed = parse_slice(
        a_slice(
            {"addresses": ["10.0.0.1", "10.0.0.99"]},
            {
                "addresses": ["10.0.0.2"],
                "conditions": {"ready": False, "serving": True, "terminating": True},
                "nodeName": "node1",
                "zone": "a",
                "hints": {"forZones": [{"name": "a"}, {"name": "b"}], "forNodes": [{"name": "n"}]},
            },
            {"addresses": ["10.0.0.3"], "conditions": {"ready": None}, "hints": {}},
            {"addresses": []},
        )
    )
    assert parsed.problems == () and parsed.value is not None
    assert parsed.key == ObjectKey("default", "web-1")
    assert parsed.value.service == ObjectKey("default", "web")
    assert parsed.value.ports == (EndpointPort("http", Protocol.TCP, 8080),)
    first, second, third = parsed.value.endpoints()
    assert format_address(first.address) == "10.0.0.1"
    assert (first.ready, first.serving, first.terminating) == (True, True, False)
    assert first.node == "" and first.hints == NO_HINTS
    assert (second.ready, second.serving, second.terminating) == (False, True, True)
    assert second.node == "node1" and second.hints == Hints(("a", "b"), ("n",))
    assert (third.ready, third.serving, third.terminating) == (True, True, False)


def test_slices_that_are_not_for_us() -> None:
    for raw in (
        a_slice(addressType="FQDN"),
        a_slice(metadata={"name": "x", "namespace": "d"}),
        a_slice(metadata={"name": "x", "labels": {"kubernetes.io/service-name": ""}}),
    ):
        parsed = parse_slice(raw)
        assert parsed.value is None and parsed.problems == ()


@pytest.mark.rule("EP-4")
def test_ports_without_name_or_number_are_passed_over() -> None:
    ports = [{"name": None, "port": 1}, {"port": 2}, {"name": "a"}, {"name": "b", "port": 0}]
    parsed = parse_slice(a_slice(ports=[*ports, {"name": "", "port": 3, "protocol": "SCTP"}]))
    assert parsed.problems == () and parsed.value is not None
    assert parsed.value.ports == (EndpointPort("", Protocol.SCTP, 3),)


def test_bad_endpoints_are_refused_alone() -> None:
    parsed = parse_slice(
        a_slice({"addresses": ["fd00::1"]}, {"addresses": ["x"]}, 7, {"addresses": ["10.0.0.4"]})
    )
    assert parsed.value is not None
    assert [format_address(e.address) for e in parsed.value.endpoints()] == ["10.0.0.4"]
    assert parsed.problems == (
        "EndpointSlice default/web-1: endpoints[0].addresses[0] 'fd00::1' is ignored: "
        "it is not an IPv4 address.",
        "EndpointSlice default/web-1: endpoints[1].addresses[0] 'x' is ignored: "
        "it is not an IPv4 address.",
        "EndpointSlice default/web-1: endpoints[2] 7 is ignored: it is not an object.",
    )


def test_equal_port_lists_are_held_once() -> None:
    one, two = parse_slice(a_slice()).value, parse_slice(a_slice()).value
    assert one is not None and two is not None
    assert one.ports is two.ports


def test_endpoints_become_slices() -> None:
    parsed = parse_endpoints(
        {
            "metadata": META,
            "subsets": [
                {
                    "addresses": [{"ip": "10.0.0.1", "nodeName": "node1"}, {"ip": "fd00::1"}],
                    "notReadyAddresses": [{"ip": "10.0.0.2"}, {"ip": "bad"}],
                    "ports": [{"name": "http", "port": 8080}, {"port": 9000, "protocol": "UDP"}],
                },
                {"addresses": [{"ip": "10.0.0.3"}], "ports": [{"name": "http", "port": 8081}]},
            ],
        }
    )
    assert parsed.key == ObjectKey("default", "web") and parsed.value is not None
    assert len(parsed.problems) == 1 and "subsets[0].notReadyAddresses[1].ip" in parsed.problems[0]
    four, six, second = parsed.value
    assert [(format_address(e.address), e.ready, e.serving, e.terminating, e.node)
            for e in four.endpoints()] == [
        ("10.0.0.1", True, True, False, "node1"), ("10.0.0.2", False, False, False, ""),
    ]  # fmt: skip
    assert (four.family, six.family, second.family) == (Family.IPV4, Family.IPV6, Family.IPV4)
    assert (
        four.ports
        == six.ports
        == (
            EndpointPort("http", Protocol.TCP, 8080),
            EndpointPort("", Protocol.UDP, 9000),
        )
    )
    assert second.ports == (EndpointPort("http", Protocol.TCP, 8081),)
    assert len({s.key for s in parsed.value}) == 3
    assert {s.service for s in parsed.value} == {ObjectKey("default", "web")}


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("2026-01-02T03:04:05Z", 1767323045.0),
        ("2026-01-02T03:04:05.123456789Z", 1767323045.123456),
        ("2026-01-02T04:04:05.5+01:00", 1767323045.5),
        ("yesterday", 0.0),
        ("2026-01-02T03:04:05", 0.0),
        (7, 0.0),
        (None, 0.0),
    ],
)
def test_when_the_change_behind_a_slice_happened(text: object, seconds: float) -> None:
    raw = a_slice({"addresses": ["10.0.0.1"]})
    raw["metadata"]["annotations"] = {"endpoints.kubernetes.io/last-change-trigger-time": text}
    parsed = parse_slice(raw)
    assert parsed.triggered_s == pytest.approx(seconds, abs=1e-6)
    assert parsed.problems == ()
    assert parsed.value == parse_slice(a_slice({"addresses": ["10.0.0.1"]})).value


def test_endpoints_that_do_not_hold_all_are_reported() -> None:
    """The controller stops at 1000 addresses and says so."""
    truncated = {"annotations": {"endpoints.kubernetes.io/over-capacity": "truncated"}}
    subsets = [{"addresses": [{"ip": "10.0.0.1"}], "ports": [{"port": 80}]}]
    parsed = parse_endpoints({"metadata": META | truncated, "subsets": subsets})
    assert parsed.value is not None and len(parsed.value) == 1
    assert parsed.problems == (
        "Endpoints default/web: metadata.annotations[endpoints.kubernetes.io/over-capacity] "
        "'truncated' tells that addresses beyond the first 1000 were left out; use EndpointSlices.",
    )

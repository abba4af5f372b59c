"""Nothing that a server may send makes a parser raise."""

from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from ebpf_lb.kube.parse import (
    parse_endpoints,
    parse_node,
    parse_service,
    parse_service_cidr,
    parse_slice,
)
from ebpf_lb.model.key import ObjectKey
from tests.support.chance import times
from tests.unit.kube.raw import ANNOTATION

NAMES = st.sampled_from(
    ["metadata", "name", "namespace", "labels", "annotations", "creationTimestamp", "spec",
     "status", "type", "clusterIP", "clusterIPs", "ports", "port", "protocol", "nodePort",
     "externalIPs", "loadBalancer", "ingress", "ip", "ipMode", "internalTrafficPolicy",
     "externalTrafficPolicy", "sessionAffinity", "sessionAffinityConfig", "clientIP",
     "timeoutSeconds", "loadBalancerSourceRanges", "healthCheckNodePort", "addressType",
     "endpoints", "addresses", "conditions", "ready", "nodeName", "hints", "forZones", "forNodes",
     "subsets", "notReadyAddresses", "address", "podCIDR", "podCIDRs", "taints", "key", "items",
     "kubernetes.io/service-name", ANNOTATION, "topology.kubernetes.io/zone"]
)  # fmt: skip
LEAVES = st.one_of(
    st.none(), st.booleans(), st.integers(-1, 70000), st.floats(), st.text(max_size=3),
    st.sampled_from(["10.0.0.1", "fd00::1", "IPv4", "ClientIP", "None", "TCP", "10.0.0.0/8"]),
)  # fmt: skip
JSON = st.recursive(
    LEAVES,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMES, inner, max_size=6),
    max_leaves=25,
)
PARSERS = [parse_service, parse_slice, parse_endpoints, parse_node, parse_service_cidr]
NAMED = {"name": "web", "namespace": "default", "labels": {"kubernetes.io/service-name": "web"}}


@settings(max_examples=times(400), deadline=None)
@given(st.sampled_from(PARSERS), st.dictionaries(NAMES, JSON, max_size=5), st.booleans())
def test_parsing_never_raises(parse: Any, raw: dict[str, Any], named: bool) -> None:
    if named:
        raw = {"addressType": "IPv4", **raw, "metadata": NAMED}
    parsed = parse(raw)
    assert isinstance(parsed.key, ObjectKey)
    assert all(isinstance(text, str) and text.endswith(".") for text in parsed.problems)
    hash(parsed.value)


@settings(max_examples=times(400), deadline=None)
@given(st.dictionaries(NAMES, JSON, max_size=6), st.dictionaries(NAMES, JSON, max_size=4))
def test_no_spec_raises(spec: dict[str, Any], more: dict[str, Any]) -> None:
    raw = {"metadata": NAMED, "addressType": "IPv4", "spec": spec, "status": more}
    for parse in PARSERS:
        parse(raw)  # type: ignore[operator]
    parse_slice({**raw, "endpoints": [spec, more], "ports": [spec, more]})
    parse_service({**raw, "spec": {"clusterIP": "10.96.0.1", "ports": [spec, more]}})
    parse_endpoints({**raw, "subsets": [spec, more]})

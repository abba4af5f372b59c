"""What becomes of a Service on its way into the store."""

import ipaddress
from typing import Any

import pytest

from ebpf_lb.apiserver.errors import StatusError
from ebpf_lb.apiserver.kinds import SERVICE
from ebpf_lb.apiserver.registry import Registry
from ebpf_lb.apiserver.store import Stored
from tests.unit.apiserver.cluster import registry, service

Json = dict[str, Any]
IPV4 = ("10.96.0.0/24",)


def create(made: Registry, name: str = "web", **spec: Any) -> Stored:
    return made.create(SERVICE, "default", service(name, **spec))


def patch(made: Registry, change: Json, name: str = "web") -> Stored:
    return made.patch(SERVICE, "default", name, "application/merge-patch+json", {"spec": change})


def refusal(made: Registry, **spec: Any) -> str:
    with pytest.raises(StatusError) as caught:
        create(made, **spec)
    assert caught.value.code == 422
    return caught.value.message


def test_defaults() -> None:
    spec = create(registry(), selector={"app": "web"}).spec
    address = spec.pop("clusterIP")
    assert spec.pop("clusterIPs") == [address]
    assert ipaddress.ip_address(address) in ipaddress.ip_network("10.96.0.0/16")
    assert spec == {
        "type": "ClusterIP",
        "selector": {"app": "web"},
        "ports": [{"port": 80, "protocol": "TCP", "targetPort": 80}],
        "sessionAffinity": "None",
        "internalTrafficPolicy": "Cluster",
        "ipFamilies": ["IPv4"],
        "ipFamilyPolicy": "SingleStack",
    }


def test_affinity_has_a_timeout() -> None:
    made = registry()
    spec = create(made, sessionAffinity="ClientIP").spec
    assert spec["sessionAffinityConfig"] == {"clientIP": {"timeoutSeconds": 10800}}
    assert "sessionAffinityConfig" not in patch(made, {"sessionAffinity": "None"}).spec


@pytest.mark.parametrize(
    ("cidrs", "asked", "families"),
    [
        (("10.96.0.0/24", "fd00::/112"), {}, ["IPv4"]),
        (("fd00::/112", "10.96.0.0/24"), {}, ["IPv6"]),
        (("10.96.0.0/24", "fd00::/112"), {"ipFamilyPolicy": "PreferDualStack"}, ["IPv4", "IPv6"]),
        (("10.96.0.0/24",), {"ipFamilyPolicy": "PreferDualStack"}, ["IPv4"]),
        (("10.96.0.0/24", "fd00::/112"), {"ipFamilies": ["IPv6"]}, ["IPv6"]),
        (
            ("10.96.0.0/24", "fd00::/112"),
            {"ipFamilies": ["IPv6", "IPv4"], "ipFamilyPolicy": "PreferDualStack"},
            ["IPv6", "IPv4"],
        ),
        (
            ("10.96.0.0/24", "fd00::/112"),
            {"ipFamilies": ["IPv6"], "ipFamilyPolicy": "RequireDualStack"},
            ["IPv6", "IPv4"],
        ),
        (("10.96.0.0/24", "fd00::/112"), {"clusterIP": "fd00::1234"}, ["IPv6"]),
    ],
)
def test_families(cidrs: tuple[str, ...], asked: Json, families: list[str]) -> None:
    spec = create(registry(cidrs), **asked).spec
    assert spec["ipFamilies"] == families
    assert [f"IPv{ipaddress.ip_address(a).version}" for a in spec["clusterIPs"]] == families
    assert spec["clusterIP"] == spec["clusterIPs"][0]


def test_dual_stack_is_refused_where_there_is_none() -> None:
    text = refusal(registry(IPV4), ipFamilyPolicy="RequireDualStack")
    assert "spec.ipFamilyPolicy" in text and "not configured for dual-stack" in text
    text = refusal(registry(IPV4), ipFamilies=["IPv6"])
    assert 'spec.ipFamilies[0]: Invalid value: "IPv6": not configured on this cluster' in text


def test_second_family_comes_and_goes() -> None:
    made = registry()
    first = create(made).spec["clusterIP"]
    both = patch(made, {"ipFamilyPolicy": "RequireDualStack"}).spec["clusterIPs"]
    assert both[0] == first and ":" in both[1]
    spec = patch(made, {"ipFamilyPolicy": "SingleStack"}).spec
    assert (spec["clusterIPs"], spec["ipFamilies"]) == ([first], ["IPv4"])
    assert create(made, "other", clusterIP=both[1]).spec["clusterIP"] == both[1]


def test_headless() -> None:
    spec = create(registry(), clusterIP="None", selector={"a": "b"}).spec
    assert (spec["clusterIPs"], spec["ipFamilies"]) == (["None"], ["IPv4"])
    spec = create(registry(IPV4), clusterIP="None").spec
    assert spec["ipFamilies"] == ["IPv4", "IPv6"], "endpoints made by hand may be of any family"
    assert "NodePort" in refusal(registry(), clusterIP="None", type="NodePort")


def test_an_address_belongs_to_one_service() -> None:
    made = registry()
    assert create(made, clusterIP="10.96.0.77").spec["clusterIP"] == "10.96.0.77"
    with pytest.raises(StatusError, match=r"spec.clusterIPs: .*provided IP is already allocated"):
        create(made, "other", clusterIP="10.96.0.77")
    made.delete(SERVICE, "default", "web")
    assert create(made, "again", clusterIP="10.96.0.77").spec["clusterIP"] == "10.96.0.77"
    made.delete(SERVICE, "default", "again")
    assert "does not match the current range" in refusal(made, clusterIP="192.0.2.1")


def test_addresses_run_out_and_come_back() -> None:
    made = registry(("10.96.0.0/29",))  # .1 to .6, and the first one is taken
    for number in range(5):
        create(made, f"s{number}")
    assert "range is full" in refusal(made)
    made.delete(SERVICE, "default", "s3")
    create(made, "last")


def test_a_refused_or_tried_out_service_takes_nothing() -> None:
    made = registry(("10.96.0.0/29",))
    for _ in range(20):
        made.create(SERVICE, "default", service(type="NodePort"), dry_run=True)
        refusal(made, type="NodePort", ports=[{"port": 80, "nodePort": 1}])
    for number in range(5):
        create(made, f"s{number}")


def test_cluster_ip_is_immutable_and_need_not_be_repeated() -> None:
    made = registry()
    address = create(made).spec["clusterIP"]
    assert made.update(SERVICE, "default", "web", service()).spec["clusterIP"] == address
    with pytest.raises(StatusError, match=r"spec\.clusterIPs\[0\].*may not change"):
        patch(made, {"clusterIP": "10.96.0.200", "clusterIPs": ["10.96.0.200"]})


def test_node_ports() -> None:
    made = registry()
    ports = [{"port": 80, "name": "a"}, {"port": 80, "protocol": "UDP", "name": "b"}]
    first, second = create(made, type="NodePort", ports=ports).spec["ports"]
    assert 30000 <= first["nodePort"] <= 32767
    assert second["nodePort"] == first["nodePort"], "one number for both protocols of a port"
    taken = [{"port": 1, "nodePort": first["nodePort"]}]
    with pytest.raises(StatusError, match=r"spec.ports\[0\].nodePort.*already allocated"):
        create(made, "other", type="NodePort", ports=taken)
    free = create(made, "sctp", type="NodePort", ports=[taken[0] | {"protocol": "SCTP"}])
    assert free.spec["ports"][0]["nodePort"] == first["nodePort"]
    with pytest.raises(StatusError, match="valid ports is 30000-32767"):
        create(made, "low", type="NodePort", ports=[{"port": 1, "nodePort": 80}])


def test_node_ports_stay_over_updates_and_go_with_the_type() -> None:
    made = registry()
    number = create(made, type="NodePort").spec["ports"][0]["nodePort"]
    again = made.update(SERVICE, "default", "web", service(type="NodePort"))
    assert again.spec["ports"][0]["nodePort"] == number
    assert "nodePort" not in patch(made, {"type": "ClusterIP"}).spec["ports"][0]
    asked = create(made, "other", type="NodePort", ports=[{"port": 1, "nodePort": number}])
    assert asked.spec["ports"][0]["nodePort"] == number


def test_a_health_check_port_that_is_asked_for_is_not_chosen_for_a_port_as_well() -> None:
    local = {"type": "LoadBalancer", "externalTrafficPolicy": "Local"}
    [chosen] = create(registry(), **local).spec["ports"]
    [other] = create(registry(), healthCheckNodePort=chosen["nodePort"], **local).spec["ports"]
    assert other["nodePort"] != chosen["nodePort"]


def test_load_balancer() -> None:
    made = registry()
    spec = create(made, type="LoadBalancer", externalTrafficPolicy="Local").spec
    health = spec["healthCheckNodePort"]
    assert spec["allocateLoadBalancerNodePorts"] is True
    assert health != spec["ports"][0]["nodePort"]
    spec = patch(made, {"externalTrafficPolicy": "Cluster"}).spec
    assert "healthCheckNodePort" not in spec
    spec = patch(made, {"type": "ClusterIP"}).spec
    for field in ("externalTrafficPolicy", "allocateLoadBalancerNodePorts"):
        assert field not in spec
    bare = create(made, "bare", type="LoadBalancer", allocateLoadBalancerNodePorts=False).spec
    assert "nodePort" not in bare["ports"][0]


def test_load_balancer_status() -> None:
    made = registry()
    create(made, type="LoadBalancer")
    status = {"status": {"loadBalancer": {"ingress": [{"ip": "192.0.2.1"}]}}}
    kind = "application/merge-patch+json"
    made.patch(SERVICE, "default", "web", kind, status)
    assert made.get(SERVICE, "default", "web").status == {"loadBalancer": {}}
    written = made.patch(SERVICE, "default", "web", kind, status, subresource="status")
    assert written.status["loadBalancer"]["ingress"] == [{"ip": "192.0.2.1", "ipMode": "VIP"}]
    assert made.update(SERVICE, "default", "web", service(type="LoadBalancer")).status == (
        written.status
    )
    assert patch(made, {"type": "ClusterIP"}).status == {"loadBalancer": {}}


def test_external_name_has_no_address() -> None:
    made = registry()
    address = create(made).spec["clusterIP"]
    spec = patch(made, {"type": "ExternalName", "externalName": "example.com"}).spec
    assert not spec.keys() & {"clusterIP", "clusterIPs", "ipFamilies", "ipFamilyPolicy"}
    create(made, "other", clusterIP=address)
    assert patch(made, {"type": "ClusterIP"}).spec["clusterIP"]


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ({"ports": []}, "spec.ports: Required value"),
        ({"ports": [{"port": 0}]}, "spec.ports[0].port: Invalid value: 0: must be between 1 and"),
        ({"ports": [{}]}, "spec.ports[0].port"),
        ({"ports": [{"port": 70000, "targetPort": 1}]}, "spec.ports[0].port: Invalid value: 70000"),
        ({"ports": [{"port": 1, "targetPort": "UP"}]}, "spec.ports[0].targetPort"),
        ({"ports": [{"port": 1}, {"port": 2}]}, "spec.ports[0].name: Required value"),
        (
            {"ports": [{"port": 1, "name": "a"}, {"port": 2, "name": "a"}]},
            'spec.ports[1].name: Duplicate value: "a"',
        ),
        (
            {"ports": [{"port": 1, "name": "a"}, {"port": 1, "name": "b"}]},
            "spec.ports[1]: Duplicate value",
        ),
        (
            {"ports": [{"port": 1, "protocol": "tcp"}]},
            'spec.ports[0].protocol: Unsupported value: "tcp": supported values: "SCTP", "TCP"',
        ),
        ({"type": "Foo"}, 'spec.type: Unsupported value: "Foo"'),
        ({"sessionAffinity": "Maybe"}, "spec.sessionAffinity: Unsupported value"),
        ({"internalTrafficPolicy": "Foo"}, "spec.internalTrafficPolicy: Unsupported value"),
        ({"externalTrafficPolicy": "Local"}, "spec.externalTrafficPolicy: Invalid value"),
        ({"trafficDistribution": "Foo"}, "spec.trafficDistribution: Unsupported value"),
        ({"externalIPs": ["127.0.0.1"]}, "spec.externalIPs[0]: Invalid value"),
        ({"externalIPs": ["web"]}, "spec.externalIPs[0]: Invalid value"),
        (
            {"type": "LoadBalancer", "loadBalancerSourceRanges": ["10.0.0.1"]},
            "spec.loadBalancerSourceRanges[0]: Invalid value",
        ),
        ({"selector": {"a b": "c"}}, "spec.selector: Invalid value"),
        ({"clusterIP": "web"}, "spec.clusterIPs[0]: Invalid value"),
        ({"type": "ExternalName"}, "spec.externalName: Required value"),
        (
            {
                "sessionAffinity": "ClientIP",
                "sessionAffinityConfig": {"clientIP": {"timeoutSeconds": 90000}},
            },
            "spec.sessionAffinityConfig.clientIP.timeoutSeconds: Invalid value: 90000",
        ),
        ({"ipFamilies": ["IPv4", "IPv6"]}, "spec.ipFamilyPolicy: Invalid value"),
        ({"clusterIPs": ["10.96.0.7"]}, "must be empty when `clusterIP` is not specified"),
        ({"ports": [{"port": 1, "nodePort": 30000}]}, "spec.ports[0].nodePort: Forbidden"),
    ],
)
def test_what_is_refused(spec: Json, message: str) -> None:
    text = refusal(registry(), **spec)
    assert text.startswith('Service "web" is invalid: ')
    assert message in text


def test_wrong_types_are_refused_before_anything_else() -> None:
    with pytest.raises(StatusError) as caught:
        create(registry(), ports=[{"port": "http"}])
    assert caught.value.code == 400
    assert caught.value.message.startswith('Service in version "v1" cannot be handled as a Service')
    assert caught.value.details is not None
    assert caught.value.details["causes"][0]["field"] == "spec.ports[0].port"

"""What a pod finds: environment variables of Services, resolv.conf, hosts."""

from typing import Any

import pytest

from ebpf_lb.lab.kubelet import etc, manifest
from ebpf_lb.lab.kubelet.environment import variables

Json = dict[str, Any]
CLUSTER_DNS = ("10.96.0.10", "fd00:10:96::a")


def pod(**spec: Any) -> Json:
    spec = {"containers": [{"name": "c", "image": "i"}]} | spec
    return {"metadata": {"name": "web-0", "namespace": "shop", "uid": "u"}, "spec": spec}


def service(name: str, address: str, *ports: tuple[str, int], namespace: str = "shop") -> Json:
    listed = [{"name": n, "port": number, "protocol": "TCP"} for n, number in ports]
    spec = {"clusterIP": address, "ports": listed}
    return {"metadata": {"name": name, "namespace": namespace}, "spec": spec}


KUBERNETES = service("kubernetes", "10.96.0.1", ("https", 443), namespace="default")
REDIS = service("redis-primary", "10.0.0.11", ("", 6379))


def test_the_example_of_kubernetes_documentation() -> None:
    found = variables(pod(), [REDIS], ())
    assert found == {
        "HOSTNAME": "web-0",
        "REDIS_PRIMARY_SERVICE_HOST": "10.0.0.11",
        "REDIS_PRIMARY_SERVICE_PORT": "6379",
        "REDIS_PRIMARY_PORT": "tcp://10.0.0.11:6379",
        "REDIS_PRIMARY_PORT_6379_TCP": "tcp://10.0.0.11:6379",
        "REDIS_PRIMARY_PORT_6379_TCP_PROTO": "tcp",
        "REDIS_PRIMARY_PORT_6379_TCP_PORT": "6379",
        "REDIS_PRIMARY_PORT_6379_TCP_ADDR": "10.0.0.11",
    }


def test_several_ports_ipv6_and_what_has_no_address() -> None:
    two = service("web", "fd00::7", ("http", 80), ("admin-ui", 81))
    found = variables(pod(), [two, service("db", "None", ("", 5432))], ())
    assert found["WEB_SERVICE_PORT"] == found["WEB_SERVICE_PORT_HTTP"] == "80"
    assert found["WEB_SERVICE_PORT_ADMIN_UI"] == "81"
    assert found["WEB_PORT"] == found["WEB_PORT_80_TCP"] == "tcp://[fd00::7]:80"
    assert found["WEB_PORT_81_TCP_ADDR"] == "fd00::7"
    assert not [name for name in found if name.startswith("DB")]


def test_without_service_links_only_the_api_server_is_told() -> None:
    found = variables(pod(enableServiceLinks=False), [KUBERNETES, REDIS], ())
    assert found["KUBERNETES_SERVICE_HOST"] == "10.96.0.1"
    assert not [name for name in found if name.startswith("REDIS")]


def test_the_manifests_own_variables_win_and_may_name_others() -> None:
    env = [
        {"name": "REDIS_PRIMARY_PORT", "value": "mine"},
        {"name": "URL", "value": "redis://$(REDIS_PRIMARY_SERVICE_HOST)/$(NOTHING)/$$(URL)"},
        {"name": "IP", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}},
        {"name": "ME", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}},
    ]
    container = {"name": "c", "image": "i", "env": env}
    found = variables(pod(containers=[container]), [REDIS], ["10.244.1.5", "fd00::5"])
    assert found["REDIS_PRIMARY_PORT"] == "mine"
    assert found["URL"] == "redis://10.0.0.11/$(NOTHING)/$(URL)"
    assert (found["IP"], found["ME"]) == ("10.244.1.5", "web-0")


SEARCH = "search shop.svc.cluster.local svc.cluster.local cluster.local"
SERVERS = "nameserver 10.96.0.10\nnameserver fd00:10:96::a"


@pytest.mark.parametrize(
    ("spec", "text"),
    [
        ({}, f"{SEARCH}\n{SERVERS}\noptions ndots:5\n"),
        ({"hostNetwork": True}, None),
        ({"hostNetwork": True, "dnsPolicy": "ClusterFirstWithHostNet"},
         f"{SEARCH}\n{SERVERS}\noptions ndots:5\n"),
        ({"dnsPolicy": "Default"}, None),
        ({"dnsPolicy": "None", "dnsConfig": {"nameservers": ["192.0.2.1"], "searches": ["a.b"]}},
         "search a.b\nnameserver 192.0.2.1\n"),
        ({"dnsConfig": {"options": [{"name": "ndots", "value": "2"}, {"name": "edns0"}]}},
         f"{SEARCH}\n{SERVERS}\noptions ndots:2 edns0\n"),
    ],
)  # fmt: skip
def test_resolv_conf(spec: Json, text: str | None) -> None:
    assert etc.resolv_conf(pod(**spec), CLUSTER_DNS) == text


def test_a_lab_without_dns_leaves_the_machines_resolv_conf() -> None:
    assert etc.resolv_conf(pod(), ()) is None


def test_hosts() -> None:
    made = pod(subdomain="web", hostAliases=[{"ip": "192.0.2.7", "hostnames": ["db", "db.old"]}])
    lines = etc.hosts(made, ["10.244.1.5", "fd00::5"]).splitlines()
    whole = "web-0.web.shop.svc.cluster.local\tweb-0"
    assert lines[2:] == [f"10.244.1.5\t{whole}", f"fd00::5\t{whole}", "192.0.2.7\tdb db.old"]


@pytest.mark.parametrize(
    ("image", "is_dns"),
    [
        ("coredns", True),
        ("registry.k8s.io/coredns/coredns:v1.12.0", True),
        ("localhost:5000/coredns@sha256:abc", True),
        ("registry.k8s.io/e2e-test-images/agnhost:2.53", False),
        ("coredns-autoscaler:1", False),
    ],
)
def test_dns_servers_are_known_by_their_image(image: str, is_dns: bool) -> None:
    assert manifest.is_dns_server(pod(containers=[{"image": image}])) == is_dns

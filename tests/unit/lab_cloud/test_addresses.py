"""Which addresses the lab's cloud gives to LoadBalancer Services."""

import ipaddress
from typing import Any

import pytest

from ebpf_lb.lab.cloud.addresses import GIVEN, Decision, Pool, decide, external_addresses

POOL = Pool(
    (ipaddress.ip_network("172.29.0.0/29"), ipaddress.ip_network("fd29::/125")),
    reserved=(ipaddress.ip_network("172.30.0.0/24"),),
)


def service(
    *addresses: str, given: bool = True, families: str = "IPv4 IPv6", **spec: Any
) -> dict[str, Any]:
    """A LoadBalancer Service that has these addresses already, from the cloud unless not given."""
    annotations = {GIVEN: ",".join(addresses)} if given else {}
    return {
        "metadata": {"annotations": annotations},
        "spec": {"type": "LoadBalancer", "ipFamilies": families.split(), **spec},
        "status": {"loadBalancer": {"ingress": [{"ip": address} for address in addresses]}},
    }


def test_an_address_of_each_family() -> None:
    assert decide(service(), POOL, ()) == Decision(("172.29.0.1", "fd29::1"))


def test_what_others_have_is_not_given() -> None:
    taken = {"172.29.0.1", "172.29.0.2", "fd29::1"}
    assert decide(service(), POOL, taken) == Decision(("172.29.0.3", "fd29::2"))


def test_who_has_what_it_should_is_left_alone() -> None:
    assert decide(service("172.29.0.5", "fd29::6"), POOL, ()) is None


def test_a_second_family_adds_an_address_and_the_first_one_stays() -> None:
    assert decide(service("172.29.0.5"), POOL, ()) == Decision(("172.29.0.5", "fd29::1"))


def test_a_family_that_goes_takes_its_address_along() -> None:
    wanted = Decision(("fd29::6",))
    assert decide(service("172.29.0.5", "fd29::6", families="IPv6"), POOL, ()) == wanted


@pytest.mark.parametrize(
    "foreign",
    [
        service(loadBalancerClass="example.com/other"),
        service("203.0.113.7", given=False),
        service("172.29.0.5", given=False),
        service(type="NodePort"),
        service(type="ClusterIP"),
    ],
    ids=["class", "by-hand", "by-hand-from-the-pool", "NodePort", "ClusterIP"],
)
def test_what_is_not_the_clouds_is_left_alone(foreign: dict[str, Any]) -> None:
    assert decide(foreign, POOL, ()) is None


def test_a_status_changed_by_hand_after_the_cloud_gave_one_is_left_alone() -> None:
    changed = service("203.0.113.7")
    changed["metadata"]["annotations"] = {GIVEN: "172.29.0.1"}
    assert decide(changed, POOL, ()) is None


@pytest.mark.parametrize("asked", ["172.29.0.4", "203.0.113.7"])
def test_a_wish_is_honoured_in_its_family(asked: str) -> None:
    wish = service(loadBalancerIP=asked)
    assert decide(wish, POOL, ()) == Decision((asked, "fd29::1"))


def test_a_wish_that_changes_is_followed() -> None:
    wish = service("172.29.0.1", "fd29::1", loadBalancerIP="172.29.0.4")
    assert decide(wish, POOL, ()) == Decision(("172.29.0.4", "fd29::1"))


@pytest.mark.parametrize(
    ("asked", "why"), [("172.29.0.4", "another Service's"), ("172.30.0.11", "uses otherwise")]
)
def test_a_wish_that_cannot_be(asked: str, why: str) -> None:
    wish = service(loadBalancerIP=asked, families="IPv4")
    refused = decide(wish, POOL, {"172.29.0.4"})
    assert refused is not None
    assert (refused.addresses, why in refused.problem) == ((), True)


def test_an_empty_pool_is_said() -> None:
    taken = {str(address) for address in ipaddress.ip_network("172.29.0.0/29")}
    refused = decide(service(families="IPv4"), POOL, taken)
    assert refused == Decision((), "no IPv4 address is left in the lab's pool")


def test_addresses_that_routers_must_know() -> None:
    proxied = service("172.29.0.1", "FD29::0:1", externalIPs=["198.51.100.1"])
    proxied["status"]["loadBalancer"]["ingress"][0]["ipMode"] = "Proxy"
    proxied["status"]["loadBalancer"]["ingress"].append({"hostname": "lb.example"})
    assert list(external_addresses(proxied)) == ["fd29::1", "198.51.100.1"]

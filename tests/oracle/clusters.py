"""Random clusters as raw JSON, out of pools so small that everything meets everything."""

from collections.abc import Iterator
from typing import Any

from hypothesis import strategies as st
from hypothesis.strategies import DrawFn

from tests.oracle.objects import endpoint_slice
from tests.oracle.oracle import Client, ClientKind, Destination, Node, version

NODES = ["node1", "node2", "node3"]
ZONES = ["a", "b"]
NODE = Node("node1", "a", ("192.168.0.1", "192.168.7.1", "fd00:192::1"))
PODS = {4: [f"10.244.{n}.{i}" for n in (1, 2) for i in (1, 2, 3)],
        6: [f"fd00:244:{n}::{i}" for n in (1, 2) for i in (1, 2, 3)]}  # fmt: skip
# addresses that Services may quarrel about: an outsider's, a node's own, another's ClusterIP
SHARED = ["203.0.113.1", "203.0.113.2", "192.168.0.1", "10.96.0.1", "2001:db8::1", "fd00:96::1"]
PORT_NAMES = ["", "http", "dns"]
PROTOCOLS = ["TCP", "UDP", "SCTP"]
PORTS = [80, 53, 30080, 30053]
RANGES = ["203.0.113.0/24", " 192.168.0.0/16", "2001:db8::/32", "0.0.0.0/0", "198.51.100.7/32 "]


def optional(strategy: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.none() | strategy


def without_none(value: dict[str, Any]) -> dict[str, Any]:
    return {name: item for name, item in value.items() if item is not None}


@st.composite
def services(draw: DrawFn, number: int) -> dict[str, Any]:
    kinds = ["ClusterIP", "NodePort", *["LoadBalancer"] * 5, "ExternalName"]
    kind = draw(st.sampled_from(kinds))
    ips = draw(
        st.sampled_from(
            [[f"10.96.0.{number}", f"fd00:96::{number}"]] * 3
            + [[f"10.96.0.{number}"]] * 3
            + [["None"]]
        )
    )
    if kind == "ExternalName":
        ips = [""]
    ports = draw(
        st.lists(
            st.fixed_dictionaries(
                {
                    "name": st.sampled_from(PORT_NAMES),
                    "protocol": st.sampled_from(PROTOCOLS),
                    "port": st.sampled_from(PORTS),
                    "nodePort": st.sampled_from([0, 30080, 30053, 30080, 30053]),
                }
            ),
            min_size=1,
            max_size=3,
            unique_by=(lambda p: p["name"], lambda p: (p["port"], p["protocol"])),
        )
    )
    policy = optional(st.sampled_from(["Cluster", "Local"]))
    ingress = st.fixed_dictionaries(
        {"ip": st.sampled_from(SHARED)},
        optional={"ipMode": st.sampled_from(["VIP", "VIP", "Proxy"])},
    )
    ranges = draw(optional(st.lists(st.sampled_from(RANGES), max_size=2, unique=True)))
    as_annotation = draw(st.booleans())
    annotation = "service.beta.kubernetes.io/load-balancer-source-ranges"
    label = draw(
        st.sampled_from(
            [None] * 12
            + ["service.kubernetes.io/headless", "service.kubernetes.io/service-proxy-name"]
        )
    )
    return {
        "kind": "Service",
        "metadata": {
            "namespace": draw(st.sampled_from(["default", "prod"])),
            "name": f"s{number}",
            "creationTimestamp": draw(
                st.sampled_from(["2026-01-01T00:00:00Z", "2026-02-01T00:00:00Z"])
            ),
            "labels": {label: ""} if label else {},
            "annotations": {annotation: ",".join(ranges)} if ranges and as_annotation else {},
        },
        "spec": without_none(
            {
                "type": kind,
                "clusterIP": ips[0],
                "clusterIPs": ips if ips[0] else None,
                "ports": ports,
                "externalIPs": draw(
                    optional(st.lists(st.sampled_from(SHARED), max_size=2, unique=True))
                ),
                "internalTrafficPolicy": draw(policy),
                "externalTrafficPolicy": draw(policy),
                "loadBalancerSourceRanges": None if as_annotation else ranges,
            }
        ),
        "status": {"loadBalancer": {"ingress": draw(st.lists(ingress, max_size=2))}},
    }


@st.composite
def slices(draw: DrawFn, number: int, service: dict[str, Any]) -> dict[str, Any]:
    family = draw(st.sampled_from([4, 4, 6]))
    condition = optional(st.booleans())
    conditions = st.one_of(
        st.just({"ready": True, "serving": True, "terminating": False}),
        st.just({"ready": False, "serving": True, "terminating": True}),
        st.just({"ready": False, "serving": False, "terminating": False}),
        st.fixed_dictionaries({"ready": condition, "serving": condition, "terminating": condition}),
    )
    # a single endpoint without hints ends those of all the others
    hints = {"forNodes": named(NODES), "forZones": named(ZONES)}
    wholly = draw(st.sampled_from([(), ("forZones",), ("forNodes", "forZones")]))
    always = {kind: hints[kind].filter(bool) for kind in wholly}
    often = {kind: hints[kind] for kind in hints if kind not in wholly}
    hinted = {"hints": st.fixed_dictionaries(always, optional=often)}
    endpoint = st.fixed_dictionaries(
        {
            "addresses": st.sampled_from(PODS[family]).map(lambda address: [address]),
            **(hinted if wholly else {}),
        },
        optional={
            "conditions": conditions,
            "nodeName": st.sampled_from(NODES),
            **({} if wholly else hinted),
        },
    )
    port = st.fixed_dictionaries(
        {"name": optional(st.sampled_from(PORT_NAMES)), "port": st.sampled_from([8080, 5353, 0])},
        optional={"protocol": st.sampled_from(PROTOCOLS)},
    )
    any_ports = st.lists(port, max_size=3, unique_by=lambda p: p["name"])
    asked_for = st.just(
        [
            {"name": p["name"], "protocol": p["protocol"], "port": 8080 + number % 2}
            for p in service["spec"]["ports"]
        ]
    )
    ports = draw(st.one_of([any_ports, asked_for, asked_for, asked_for]))
    endpoints = draw(
        st.lists(endpoint, min_size=1, max_size=5, unique_by=lambda e: tuple(e["addresses"]))
    )
    return endpoint_slice(service, number, family, ports, endpoints)


def named(names: list[str]) -> st.SearchStrategy[list[dict[str, str]]]:
    return st.lists(st.sampled_from(names), max_size=2, unique=True).map(
        lambda chosen: [{"name": name} for name in sorted(chosen)]
    )


@st.composite
def clusters(draw: DrawFn) -> list[dict[str, Any]]:
    some = [draw(services(number)) for number in range(1, draw(st.integers(1, 3)) + 1)]
    return some + [
        draw(slices(number, draw(st.sampled_from(some))))
        for number in range(draw(st.integers(0, 3)) + draw(st.integers(0, 3)))
    ]


CLIENTS = {
    ClientKind.LOCAL_POD: ["10.244.1.1", "fd00:244:1::1"],
    ClientKind.REMOTE_POD: ["10.244.2.1", "fd00:244:2::1"],
    ClientKind.NODE: ["192.168.0.1", "203.0.113.1", "fd00:192::1"],
    ClientKind.OUTSIDE: ["203.0.113.77", "198.51.100.7", "198.51.100.8", "2001:db8::77"],
}


def questions(objects: list[dict[str, Any]]) -> Iterator[tuple[Client, Destination]]:
    """Everything worth asking: each address of each Service on each of its ports, and beside."""
    found: dict[Destination, None] = {}
    for service in objects:
        if service["kind"] != "Service":
            continue
        spec = service["spec"]
        ingress = service["status"]["loadBalancer"]["ingress"]
        own = [*(spec.get("clusterIPs") or []), *(spec.get("externalIPs") or [])]
        own = [address for address in own if address != "None"] + [i["ip"] for i in ingress]
        for port in spec["ports"]:
            for address in own:
                found[Destination(address, port["port"], port["protocol"])] = None
            for address in NODE.addresses if port["nodePort"] else ():
                found[Destination(address, port["nodePort"], port["protocol"])] = None
        for address in own[:1]:
            found[Destination(address, 81, "UDP")] = None
    found[Destination("192.168.0.9", 30080, "TCP")] = None
    for destination in found:
        for kind, addresses in CLIENTS.items():
            for address in addresses:
                if version(address) == version(destination.address):
                    yield Client(kind, address), destination

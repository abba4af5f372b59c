"""Clusters by the ten thousand, each a change to the one before, and what to ask of them.

Made by plain chance, which takes a tenth of the time that Hypothesis needs. The addresses are those
of the packet tests' node (tests/datapath/node.py): pools are so small that everything meets.
"""

import random
from dataclasses import dataclass
from typing import Any

from tests.oracle.objects import Json, endpoint_slice
from tests.oracle.oracle import Client, ClientKind, Destination, Node, version

NODE_ADDRESSES = ("172.30.0.11", "192.168.7.1", "fd30::11", "fd00:192::1")
WHERE = {
    **{f"10.244.1.{n}": "node1" for n in (1, 2, 3)},
    **{f"10.244.2.{n}": "node2" for n in (1, 2, 3)},
    **{f"10.244.3.{n}": "node3" for n in (1, 2)},
    **{f"fd00:10:244:1::{n}": "node1" for n in (1, 2, 3)},
    **{f"fd00:10:244:2::{n}": "node2" for n in (1, 2, 3)},
    **{f"fd00:10:244:3::{n}": "node3" for n in (1, 2)},
    # pods in their nodes' network, and what no node runs
    "172.30.0.11": "node1", "fd30::11": "node1", "172.30.0.12": "node2", "fd30::12": "node2",
    "198.51.100.50": "", "2001:db8::50": "",
}  # fmt: skip
"""Whatever an endpoint may be, and the node it runs on."""
PLACES = {v: [address for address in WHERE if version(address) == v] for v in (4, 6)}
# addresses that Services may quarrel about: outsiders', the node's own, another's ClusterIP
SHARED = ["203.0.113.1", "203.0.113.2", "203.0.113.3", "172.30.0.11", "10.96.0.1",
          "2001:db8:1::1", "2001:db8:1::2", "fd00:96::1"]  # fmt: skip
RANGES = ["203.0.113.0/24", " 172.30.0.0/16", "2001:db8::/32", "0.0.0.0/0", "198.51.100.7/32 ",
          "10.244.0.0/16", "::/0", "fd00::/8"]  # fmt: skip
PORT_NAMES = ["", "http", "dns"]
PORTS = [80, 53, 30080, 30053]
PROTOCOLS = ["TCP", "TCP", "UDP", "UDP", "SCTP"]
SERVICE_NETWORKS = ("10.96.0.0/16", "fd00:96::/112")
SERVICES, SLICES = 3, 7
RANGES_ANNOTATION = "service.beta.kubernetes.io/load-balancer-source-ranges"

CLIENTS = {
    ClientKind.LOCAL_POD: ["10.244.1.1", "10.244.1.9", "fd00:10:244:1::1", "fd00:10:244:1::9"],
    ClientKind.REMOTE_POD: ["10.244.2.1", "10.244.3.9", "fd00:10:244:2::1", "fd00:10:244:3::9"],
    ClientKind.NODE: ["172.30.0.11", "192.168.7.1", "fd30::11", "fd00:192::1"],
    ClientKind.OUTSIDE: ["203.0.113.77", "198.51.100.7", "172.30.0.12", "2001:db8::77",
                         "2001:db8:ffff::7", "fd30::12"],
}  # fmt: skip


@dataclass(frozen=True)
class Situation:
    """A cluster at a moment, and one of its nodes. Objects by a name of their place.

    order: a seed for the order in which Services are programmed, which may be any.
    """

    objects: dict[str, Json]
    node: Node
    masquerade_all: bool = False
    pod_networks_known: bool = True
    service_networks: tuple[str, ...] = ()
    order: int = 0


NOTHING = Situation({}, Node("node1"))


def after(previous: Situation, rng: random.Random) -> Situation:
    """What may have become of a cluster: about half of it is as it was."""
    objects: dict[str, Json] = {}
    for number in range(1, SERVICES + 1):
        _change(objects, previous, f"service {number}", rng, lambda: _service(rng, number))  # noqa: B023
    present = [o for o in objects.values() if o["kind"] == "Service"]
    for number in range(SLICES if present else 0):
        _change(
            objects, previous, f"slice {number}", rng,
            lambda: _slice(rng, number, rng.choice(present)),  # noqa: B023
        )  # fmt: skip
    same_node = previous is not NOTHING and rng.random() < 0.8
    node = previous.node if same_node else _node(rng)
    return Situation(
        objects,
        node,
        masquerade_all=rng.random() < 0.15,
        pod_networks_known=rng.random() < 0.7,
        service_networks=SERVICE_NETWORKS if rng.random() < 0.5 else (),
        order=rng.randrange(99),
    )


def _change(
    objects: dict[str, Json], previous: Situation, place: str, rng: random.Random, make: Any
) -> None:
    chance = rng.random()
    if chance < 0.5 and place in previous.objects:
        objects[place] = previous.objects[place]
    elif chance < 0.85:
        objects[place] = make()


def _node(rng: random.Random) -> Node:
    addresses = rng.choice((NODE_ADDRESSES, NODE_ADDRESSES, NODE_ADDRESSES[::2]))
    return Node("node1", rng.choice(("a", "b", "")), addresses)


def _service(rng: random.Random, number: int) -> Json:
    chance = rng.random
    kind = (
        "ExternalName"
        if chance() < 0.03
        else rng.choice(("NodePort", "LoadBalancer", "LoadBalancer"))
    )
    both = [f"10.96.0.{number}", f"fd00:96::{number}"]
    ips = rng.choice((both, both, both[::-1], both[:1], both[1:]))
    if chance() < 0.03:
        ips = ["None"]
    labels: Json = {}
    if chance() < 0.05:
        labels[f"service.kubernetes.io/{rng.choice(('headless', 'service-proxy-name'))}"] = ""
    annotations: Json = {}
    if chance() < 0.05:
        annotations["ebpf-lb.io/algorithm"] = "maglev"
    spec: Json = {"type": kind, "ports": _ports(rng)}
    if kind != "ExternalName":
        spec |= {"clusterIP": ips[0], "clusterIPs": ips}
    for policy in ("internalTrafficPolicy", "externalTrafficPolicy"):
        if chance() < 0.6:
            spec[policy] = rng.choice(("Cluster", "Local"))
    if chance() < 0.4:
        spec["externalIPs"] = rng.sample(SHARED, rng.choice((1, 1, 2)))
    if chance() < 0.3:
        spec["sessionAffinity"] = "ClientIP"
    if chance() < 0.4:
        ranges = rng.sample(RANGES, rng.choice((1, 1, 2)))
        if chance() < 0.5:
            annotations[RANGES_ANNOTATION] = ",".join(ranges)
        else:
            spec["loadBalancerSourceRanges"] = ranges
    ingress = []
    if kind == "LoadBalancer":
        for address in rng.sample(SHARED, rng.choice((1, 1, 2, 3))):
            ingress.append({"ip": address})
            if chance() < 0.3:
                ingress[-1]["ipMode"] = rng.choice(("VIP", "Proxy"))
    return {
        "kind": "Service",
        "metadata": {
            "namespace": rng.choice(("default", "default", "prod")),
            "name": f"s{number}",
            "creationTimestamp": f"2026-0{rng.choice((1, 2))}-01T00:00:00Z",
            "labels": labels,
            "annotations": annotations,
        },
        "spec": spec,
        "status": {"loadBalancer": {"ingress": ingress}},
    }


def _ports(rng: random.Random) -> list[Json]:
    ports: dict[tuple[int, str], Json] = {}
    for name in rng.sample(PORT_NAMES, rng.choice((1, 1, 2, 3))):
        port, protocol = rng.choice(PORTS), rng.choice(PROTOCOLS)
        ports[port, protocol] = {"name": name, "protocol": protocol, "port": port}
        node_port = rng.choice((0, 30080, 30053))
        if node_port:
            ports[port, protocol]["nodePort"] = node_port
    return list(ports.values())


def _slice(rng: random.Random, number: int, service: Json) -> Json:
    ips = [ip for ip in service["spec"].get("clusterIPs", ()) if ip != "None"]
    family = version(rng.choice(ips)) if ips and rng.random() < 0.9 else rng.choice((4, 6))
    ports: list[Json] = [
        # named target ports may resolve to another number in each slice
        {"name": p["name"], "protocol": p["protocol"], "port": 8080 + rng.choice((0, 0, number))}
        for p in service["spec"]["ports"]
    ]
    if rng.random() < 0.1:
        ports = [{"name": rng.choice((None, *PORT_NAMES)), "port": rng.choice((8080, 0, None))}]
    chosen = rng.sample(PLACES[family], rng.choice((1, 1, 2, 2, 3, 5)))
    endpoints = [_endpoint(rng, address) for address in chosen]
    return endpoint_slice(service, number, family, ports, endpoints)


READY = {"ready": True, "serving": True, "terminating": False}
DRAINING = {"ready": False, "serving": True, "terminating": True}
UNREADY = {"ready": False, "serving": False, "terminating": False}


def _endpoint(rng: random.Random, address: str) -> Json:
    endpoint: Json = {"addresses": [address]}
    if WHERE[address] and rng.random() < 0.9:
        endpoint["nodeName"] = WHERE[address]
    chance = rng.random()
    if chance < 0.45:
        endpoint["conditions"] = READY
    elif chance < 0.9:
        endpoint["conditions"] = rng.choice((DRAINING, UNREADY))
    else:
        endpoint["conditions"] = {
            name: rng.choice((None, True, False)) for name in ("ready", "serving", "terminating")
        }
    if rng.random() < 0.3:
        endpoint["hints"] = {
            kind: [{"name": rng.choice(names)}]
            for kind, names in (("forNodes", ("node1", "node2")), ("forZones", ("a", "b")))
            if rng.random() < 0.7
        }
    return endpoint


def destinations(situation: Situation) -> list[Destination]:
    """Each address of each Service on each of its ports, and what is beside them."""
    found: dict[Destination, None] = {}
    for service in situation.objects.values():
        if service["kind"] != "Service":
            continue
        spec = service["spec"]
        ingress = service["status"]["loadBalancer"]["ingress"]
        own = [*spec.get("clusterIPs", ()), *spec.get("externalIPs", ())]
        own = [address for address in own if address != "None"] + [i["ip"] for i in ingress]
        for port in spec["ports"]:
            for address in own:
                found[Destination(address, port["port"], port["protocol"])] = None
            for address in NODE_ADDRESSES if "nodePort" in port else ():
                found[Destination(address, port["nodePort"], port["protocol"])] = None
        for address in own[:1]:
            found[Destination(address, 81, "UDP")] = None
    for number in range(1, SERVICES + 2):  # some Service's, or nobody's any more, or never
        found[Destination(f"10.96.0.{number}", 80, "TCP")] = None
        found[Destination(f"fd00:96::{number}", 53, "UDP")] = None
    found[Destination("172.30.0.12", 30080, "TCP")] = None
    return list(found)


def clients(destination: Destination, stranger: str = "") -> list[Client]:
    """All kinds of them, in the destination's family; `stranger`: one more from outside."""
    found = [
        Client(kind, address)
        for kind, addresses in CLIENTS.items()
        for address in addresses
        if version(address) == version(destination.address)
    ]
    if stranger and version(stranger) == version(destination.address):
        found.append(Client(ClientKind.OUTSIDE, stranger))
    return found

"""The verdict table of docs/semantics.md, cell by cell, with real connections.

Every cell is a kind of destination, a policy, where the endpoints are, and who asks; each is tried
in both families by TCP and UDP. What must happen stands in tests/scenarios/verdicts.yaml, where the
oracle agrees: who answers, whom each of them sees as its client, or how it ends else.
"""

import ipaddress
import itertools
import json
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from ebpf_lb.lab.cluster import Lab
from ebpf_lb.lab.options import Options
from tests.lab.conftest import Room, own_lab, room_in, sent_by_xdp
from tests.scenarios import verdicts
from tests.scenarios.verdicts import ENDPOINTS, POLICIES
from tests.support import sweep
from tests.support.checker import SETTLED_S, tries_to_see_all
from tests.support.manifests import Manifest, deployment

# The labs that other tests use, too, and one of its own.
LAYOUTS = {
    "routes-bridge": "lab",
    "vxlan-ptp": "vxlan_lab",
    "udp-ptp": "udp_lab",
    "routes-bridge-xdp": "native_lab",
    "vxlan-ptp-xdp": Options(network="vxlan", pods="ptp", xdp="native"),
}
FAMILIES = {"ipv4": 4, "ipv6": 6}
PROTOCOLS = ("tcp", "udp")
DESTINATIONS = ("ClusterIP", "NodePort", "LoadBalancer", "externalIP", "unserved")
CLIENTS = ("pod", "pod elsewhere", "node", "node unhooked", "other node", "outside")
FAMILY_PROTOCOLS = list(itertools.product(FAMILIES, PROTOCOLS))

# Near and far as node1 sees it: node3 has what is elsewhere for all who ask.
NODE, OTHER, FAR = "node1", "node2", "node3"
PORT, UNSERVED_PORT = 80, 81
ANSWER_S, SILENCE_S = 10.0, 0.7  # a lost SYN is sent again after 1, 3 and 7 s


class Cell(NamedTuple):
    """One cell of the table. `policy` is internal for ClusterIPs, external for all others."""

    destination: str
    policy: str
    endpoints: str

    @property
    def service(self) -> str:
        return f"{self.policy.lower()}-{self.endpoints}"


CELLS = [Cell(*words) for words in itertools.product(DESTINATIONS, POLICIES, ENDPOINTS)]


def manifests_of(policy: str, endpoints: str, number: int, pods: dict[str, Any]) -> list[Manifest]:
    """A Service reached in every way, and its slices, whose endpoints are given pods."""
    name = Cell("", policy, endpoints).service
    service = {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": name},
        "spec": {
            "type": "LoadBalancer",
            "ipFamilyPolicy": "RequireDualStack",
            "internalTrafficPolicy": policy,
            "externalTrafficPolicy": policy,
            "externalIPs": [f"192.0.2.{number}", f"2001:db8::{number}"],
            "ports": [
                {"name": protocol, "protocol": protocol.upper(), "port": PORT}
                for protocol in PROTOCOLS
            ],
        },
    }
    slices = [
        {
            "apiVersion": "discovery.k8s.io/v1",
            "kind": "EndpointSlice",
            "metadata": {
                "name": f"{name}-{family}",
                "labels": {"kubernetes.io/service-name": name},
            },
            "addressType": f"IPv{version}",
            "ports": [{"name": p, "protocol": p.upper(), "port": PORT} for p in PROTOCOLS],
            "endpoints": [
                {
                    "addresses": [of_version(pods[pod].addresses, version)],
                    "nodeName": pods[pod].node,
                    "conditions": {"ready": True},
                }
                for pod in ENDPOINTS[endpoints]
            ],
        }
        for family, version in FAMILIES.items()
    ]
    return [service, *slices]


def of_version(addresses: Any, version: int) -> str:
    return next(str(a) for a in addresses if ipaddress.ip_address(a).version == version)


class Expected(NamedTuple):
    """kind: answered, refused or silent; sources: backend's name -> who it may see as client."""

    kind: str
    sources: dict[str, frozenset[str]]

    def ask(self, protocol: str, address: str, port: int) -> list[Any]:
        tries, seconds = {
            "answered": (tries_to_see_all(len(self.sources) + 1), ANSWER_S),
            "refused": (4, ANSWER_S),
            "silent": (2, SILENCE_S),
        }[self.kind]
        return [protocol, address, port, tries, seconds]

    def difference(self, outcomes: list[sweep.Outcome]) -> str | None:
        """A sentence about how it was instead."""
        kinds = {outcome for outcome, _, _ in outcomes}
        if kinds != {self.kind}:
            return f"{sorted(kinds)} instead of {self.kind}"
        if self.kind != "answered":
            return None
        if (names := {name for _, name, _ in outcomes}) != self.sources.keys():
            return f"reached {sorted(names)} instead of {sorted(self.sources)}"
        wrong = {(name, seen) for _, name, seen in outcomes if seen not in self.sources[name]}
        if wrong:
            return f"{sorted(wrong)} came as clients; allowed: {self.sources}"
        return None


@dataclass
class World:
    """A lab with the table's Services in it. What a source was answered is asked once."""

    room: Room
    pods: dict[str, Any]
    objects: list[Manifest]
    # No two clients use one port, also not those that hide behind one address: a flow that ended a
    # moment ago is not what these tests are about.
    next_port: dict[str, int] = field(
        default_factory=lambda: {client: 6000 + 4000 * n for n, client in enumerate(CLIENTS)}
    )
    _addresses: dict[str, tuple[str, ...]] = field(default_factory=dict)
    answers: dict[str, dict[tuple[Cell, str, str], list[sweep.Outcome]]] = field(
        default_factory=dict
    )
    # packets that XDP on node1 has sent on meanwhile: by client and family
    by_xdp: dict[tuple[str, str], int] = field(default_factory=dict)

    @property
    def lab(self) -> Lab:
        return self.room.lab

    def host(self, client: str) -> str:
        return {
            "pod": f"{self.room.namespace}/{self.pods['client'].name}",
            "pod elsewhere": f"{self.room.namespace}/{self.pods['other'].name}",
            "node": NODE,
            "node unhooked": NODE,
            "other node": OTHER,
            "outside": "client",
        }[client]

    def addresses(self, host: str) -> tuple[str, ...]:
        """A host's own, those on which NodePorts answer where it is a node."""
        listed = json.loads(self.lab.exec(host, ["ip", "-j", "address"], check=True).stdout)
        found = [
            ipaddress.ip_address(each["local"])
            for link in listed
            for each in link["addr_info"]
            if "local" in each
        ]
        return tuple(str(a) for a in found if not (a.is_loopback or a.is_link_local))

    def node_address(self, version: int) -> str:
        """That of node1's uplink."""
        [node] = [node for node in self.lab.nodes() if node.name == NODE]
        return of_version(node.addresses, version)

    def where(self, cell: Cell, family: str, protocol: str) -> tuple[str, int]:
        """Address and port of the destination."""
        version = FAMILIES[family]
        [service] = [
            o
            for o in self.objects
            if o["kind"] == "Service" and o["metadata"]["name"] == cell.service
        ]
        spec = service["spec"]
        if cell.destination == "NodePort":
            [port] = [p for p in spec["ports"] if p["name"] == protocol]
            return self.node_address(version), port["nodePort"]
        ingress = [each["ip"] for each in service["status"]["loadBalancer"]["ingress"]]
        addresses = {"LoadBalancer": ingress, "externalIP": spec["externalIPs"]}.get(
            cell.destination, spec["clusterIPs"]
        )
        port_number = UNSERVED_PORT if cell.destination == "unserved" else PORT
        return of_version(addresses, version), port_number

    def seen_by(self, cell: Cell, client: str, version: int) -> tuple[str, str, str]:
        """Which node decides, who the client is to it in the table's words, and its address."""
        own = of_version(self.addresses_of(self.host(client)), version)
        if client == "outside":
            return NODE, "outside", own
        if client in ("pod", "node", "node unhooked"):
            return NODE, "pod" if client == "pod" else "node", own
        if cell.destination == "NodePort":
            # of another node, whose CNI hides its pods behind it: their way leads out of the pods'
            # networks
            [other] = [node for node in self.lab.nodes() if node.name == OTHER]
            return NODE, "outside", of_version(other.addresses, version)
        return OTHER, "pod" if client == "pod elsewhere" else "node", own

    def addresses_of(self, host: str) -> tuple[str, ...]:
        if host not in self._addresses:
            self._addresses[host] = self.addresses(host)
        return self._addresses[host]

    def expected(self, cell: Cell, client: str, family: str) -> Expected:
        node, asker, address = self.seen_by(cell, client, FAMILIES[family])
        present = ENDPOINTS[cell.endpoints]
        # near and far are node1's words: to the other node, both are far
        places = {pod: pod if node == NODE else "far" for pod in present}
        column = cell.endpoints if node == NODE or not present else "far"
        destination = "another port" if cell.destination == "unserved" else cell.destination
        row = verdicts.Cell(destination, cell.policy, asker, column)
        outcome = verdicts.cells()[row]
        if outcome.kind != "answered":
            return Expected({"refused": "refused", "dropped": "silent"}[outcome.kind], {})
        nodes_own = frozenset(self.addresses_of(node))
        own = nodes_own if asker == "node" else frozenset({address})
        return Expected(
            "answered",
            {
                str(self.pods[pod].name): nodes_own if place in outcome.as_node else own
                for pod, place in places.items()
                if place in outcome.pods
            },
        )

    def asked(self, client: str, asks: list[list[Any]]) -> list[list[sweep.Outcome]]:
        first = self.next_port[client]
        self.next_port[client] += sum(tries for _, _, _, tries, _ in asks)
        argv = [sys.executable, "-I", "-S", str(Path(sweep.__file__)), str(first)]
        told = json.dumps(asks)
        if client == "node unhooked":
            # of the node's network, but not of its cgroup
            with self.lab.entered(NODE):
                done = subprocess.run(argv, input=told, capture_output=True, text=True, check=False)
        else:
            done = self.lab.exec(self.host(client), argv, input=told)
        assert done.returncode == 0, done.stderr
        return [[(o, n, s) for o, n, s in tries] for tries in json.loads(done.stdout)]

    def outcomes(self, cell: Cell, client: str) -> dict[tuple[str, str], list[sweep.Outcome]]:
        """By family and protocol. All cells are asked at once, the first time."""
        if client not in self.answers:
            keys = [(each, f, p) for each in CELLS for f, p in FAMILY_PROTOCOLS]
            asks = [
                self.expected(each, client, f).ask(p, *self.where(each, f, p))
                for each, f, p in keys
            ]
            before = {family: sent_by_xdp(self.lab, NODE, family) for family in FAMILIES}
            self.answers[client] = dict(zip(keys, self.asked(client, asks), strict=True))
            for family, count in before.items():
                self.by_xdp[client, family] = sent_by_xdp(self.lab, NODE, family) - count
        return {(f, p): self.answers[client][cell, f, p] for f, p in FAMILY_PROTOCOLS}


@pytest.fixture(scope="module", params=list(LAYOUTS))
def layout(request: pytest.FixtureRequest) -> Iterator[Lab]:
    """A lab of each layout of the network."""
    shared = LAYOUTS[request.param]
    if isinstance(shared, str):
        yield request.getfixturevalue(shared)
        return
    with own_lab(shared) as made:
        yield made


@pytest.fixture(scope="module")
def world(layout: Lab, tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    for room in room_in(layout, tmp_path_factory.mktemp("verdicts")):
        made = build(room)
        try:
            yield made
        finally:
            for address in cluster_ips(made):
                layout.exec("router", ["ip", "route", "del", address])


def build(room: Room) -> World:
    places = {"client": NODE, "near": NODE, "other": OTHER, "far": FAR}
    room.apply(*(deployment(name, node=node) for name, node in places.items()))
    pods = {name: pod for name in places for pod in room.pods(name).values()}
    services = itertools.product(reversed(POLICIES), ENDPOINTS)
    room.apply(
        *(
            each
            for number, (policy, endpoints) in enumerate(services, start=1)
            for each in manifests_of(policy, endpoints, number, pods)
        )
    )
    made = World(room, pods, [])
    deadline = time.monotonic() + SETTLED_S
    while not complete(objects := read(room)):
        assert time.monotonic() < deadline, "the lab's cloud gives no addresses"
        time.sleep(0.05)
    made.objects = objects
    for service in (o for o in objects if o["kind"] == "Service"):
        ingress = [each["ip"] for each in service["status"]["loadBalancer"]["ingress"]]
        for address in (*ingress, *service["spec"]["externalIPs"]):
            room.lab.route(address, NODE)
    for address in cluster_ips(made):
        via = made.node_address(ipaddress.ip_address(address).version)
        room.lab.exec("router", ["ip", "route", "replace", address, "via", via], check=True)
    settle(made)
    return made


def read(room: Room) -> list[Manifest]:
    """The namespace's Services and slices, as the API server has them."""
    found = []
    for path, kind in (("/api/v1", "Service"), ("/apis/discovery.k8s.io/v1", "EndpointSlice")):
        items = room.lab.client.get(f"{path}/namespaces/{room.namespace}/{kind.lower()}s")["items"]
        found += [{**item, "kind": kind} for item in items]
    return found


def complete(objects: list[Manifest]) -> bool:
    return all(
        len((o.get("status", {}).get("loadBalancer") or {}).get("ingress") or []) == 2
        for o in objects
        if o["kind"] == "Service"
    )


def cluster_ips(world: World) -> list[str]:
    services = [o for o in world.objects if o["kind"] == "Service"]
    return [address for service in services for address in service["spec"]["clusterIPs"]]


def settle(world: World) -> None:
    """Until the last Service of all answers everywhere, and routes and neighbours are known."""
    cell = CELLS[0]._replace(policy="Cluster", endpoints="both")
    deadline = time.monotonic() + SETTLED_S
    for client in CLIENTS:
        cells = [cell._replace(destination=each) for each in DESTINATIONS if each != "unserved"]
        asks = [
            [p, *world.where(each, f, p), 1, 1.0] for each in cells for f, p in FAMILY_PROTOCOLS
        ]
        while {o for tries in world.asked(client, asks) for o, _, _ in tries} != {"answered"}:
            if time.monotonic() > deadline:
                return  # the cells' own tests say it better
            time.sleep(0.1)


@pytest.mark.rule(
    "VE-1",
    "VE-2",
    "VE-3",
    "VE-4",
    "VE-5",
    "VE-6",
    "VE-7",
    "VE-10",
    "VE-12",
    "VE-13",
    "VE-15",
    "VE-16",
    "KI-1",
    "KI-7",
    "KI-9",
    "KI-13",
)
@pytest.mark.parametrize(
    ("client", "cell"),
    [
        pytest.param(client, cell, id="-".join((client, *cell)))
        for client in CLIENTS
        for cell in CELLS
    ],
)
def test_cell(world: World, client: str, cell: Cell) -> None:
    differences = {}
    for (family, protocol), outcomes in world.outcomes(cell, client).items():
        expected = world.expected(cell, client, family)
        if difference := expected.difference(outcomes):
            differences[family, protocol] = difference
    assert not differences


@pytest.mark.parametrize("family", FAMILIES)
def test_xdp_sends_on_what_goes_to_pods_elsewhere_and_nothing_else(
    world: World, family: str
) -> None:
    """Towards the pod, and back. What travels in a tunnel, TC puts into it."""
    far = world.pods["far"].name
    least = 0
    for cell in CELLS:
        outcomes = world.outcomes(cell, "outside")
        for protocol in PROTOCOLS:
            answers = [name for outcome, name, _ in outcomes[family, protocol]]
            least += answers.count(far) * {"tcp": 8, "udp": 2}[protocol]
    assert least > 0
    sent = world.by_xdp["outside", family]
    if world.lab.options.xdp == "native" and world.lab.options.network == "routes":
        assert sent >= least
    else:
        assert sent == 0

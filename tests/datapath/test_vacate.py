"""What the node lives by is nobody's frontend, whatever an older agent wrote."""

import time
from collections.abc import Iterator

import pytest

from ebpf_lb.datapath.dump import dump
from ebpf_lb.datapath.pins import Build, Pins
from ebpf_lb.datapath.reader import View
from ebpf_lb.datapath.vacate import vacate
from ebpf_lb.datapath.writer import FamilyMaps, FamilyWriter
from ebpf_lb.model.values import Family, Protocol, format_address, parse_address, parse_network
from ebpf_lb.plan.forwarding import Backend, Forwarding, Frontend, FrontendKind, ServicePortName
from ebpf_lb.plan.reserved import API_SERVER, KUBELET, Reserved
from tests.capabilities import BPF, BPFFS, ROOT, needs
from tests.datapath.pinned import pin_build, pins

pytestmark = needs(ROOT, BPF, BPFFS)

SERVER = {Family.IPV4: "192.0.2.10", Family.IPV6: "2001:db8::10"}
NETWORKS = {
    Family.IPV4: ["10.96.0.0/16", "192.0.2.0/24", "198.18.0.0/15"],
    Family.IPV6: ["fd00:10:96::/112", "2001:db8::/64", "2001:db8:1::/64"],
}


@pytest.fixture
def where() -> Iterator[Pins]:
    with pins("vacate") as found:
        yield found


@pytest.fixture(params=list(Family), ids=lambda family: family.directory)
def family(request: pytest.FixtureRequest) -> Family:
    found: Family = request.param
    return found


def place(family: Family, port: int = 6443, what: str = API_SERVER) -> Reserved:
    return Reserved(parse_address(SERVER[family]), port, Protocol.TCP, what)


def writer(build: Build, family: Family) -> FamilyWriter:
    found = FamilyWriter(FamilyMaps.open(build, family), time.monotonic, 8)
    found.adopt()
    return found


def serve(
    to: FamilyWriter, name: str, port: int, kind: FrontendKind, namespace: str = "default"
) -> ServicePortName:
    address = parse_address(SERVER[to.family])
    full = ServicePortName(namespace, name, "", Protocol.TCP)
    backend = Backend(parse_address("10.1.0.1" if len(address) == 4 else "fd00::1"), 80, False)
    frontends = (Frontend(address, port, kind),)
    to.set(Forwarding(full, to.family, frontends, (backend,), (), has_any=True))
    return full


def frontends(build: Build, family: Family) -> list[tuple[int, str | None]]:
    rows = dump(View(build, family), "frontends")
    assert {row["address"] for row in rows} <= {format_address(parse_address(SERVER[family]))}
    return [(row["port"], row["service"]) for row in rows]


@pytest.mark.rule("CP-5")
@pytest.mark.parametrize("kind", [FrontendKind.EXTERNAL_IP, FrontendKind.LOAD_BALANCER])
def test_a_frontend_goes_and_others_of_the_address_stay(
    where: Pins, family: Family, kind: FrontendKind
) -> None:
    build = pin_build(where)
    old = writer(build, family)
    evil, other = serve(old, "evil", 6443, kind), serve(old, "other", 80, kind)
    [said] = vacate(where, [place(family)])
    assert SERVER[family] in said and "default/evil" in said and "API server" in said
    assert frontends(build, family) == [(80, "default/other")]
    assert vacate(where, [place(family)]) == []
    # and the next agent neither stumbles over it nor brings it back
    new = writer(build, family)
    new.retain([evil, other])
    assert frontends(build, family) == [(80, "default/other")]
    new.delete(evil)
    new.delete(other)
    assert frontends(build, family) == []


def test_an_older_builds_maps_are_looked_at_as_well(where: Pins, family: Family) -> None:
    """Its programs run until the new ones have all Services, and for these we need the server."""
    old = pin_build(where, "old")
    serve(writer(old, family), "evil", 6443, FrontendKind.EXTERNAL_IP)
    pin_build(where, "new")
    assert len(vacate(where, [place(family)])) == 1
    assert frontends(old, family) == []


def test_a_cluster_ip_of_the_wrong_cluster_refuses_no_other_ports(
    where: Pins, family: Family
) -> None:
    build = pin_build(where)
    serve(writer(build, family), "evil", 80, FrontendKind.CLUSTER_IP)
    assert frontends(build, family) == [(0, None), (80, "default/evil")]
    [said] = vacate(where, [place(family)])
    assert "ClusterIP" in said
    assert frontends(build, family) == [(80, "default/evil")]


def test_the_api_servers_own_service_stays(where: Pins, family: Family) -> None:
    """Who was told its ClusterIP, as pods are, reaches the server by this alone."""
    build = pin_build(where)
    to = writer(build, family)
    serve(to, "kubernetes", 443, FrontendKind.CLUSTER_IP)
    to.set_service_networks(map(parse_network, NETWORKS[family]))
    assert vacate(where, [place(family, 443)]) == []
    assert frontends(build, family) == [(0, None), (443, "default/kubernetes")]
    assert len(dump(View(build, family), "service_networks")) == 3


def test_a_service_of_that_name_elsewhere_is_any_service(where: Pins, family: Family) -> None:
    build = pin_build(where)
    serve(writer(build, family), "kubernetes", 443, FrontendKind.EXTERNAL_IP, "tenant")
    assert len(vacate(where, [place(family, 443)])) == 1


def test_a_service_network_that_holds_the_server_goes(where: Pins, family: Family) -> None:
    build = pin_build(where)
    writer(build, family).set_service_networks(map(parse_network, NETWORKS[family]))
    [said] = vacate(where, [place(family)])
    assert "ServiceCIDR" in said
    left = [row["network"] for row in dump(View(build, family), "service_networks")]
    assert sorted(left) == sorted([NETWORKS[family][0], NETWORKS[family][2]])


def test_where_others_are_only_their_own_port_is_vacated(where: Pins, family: Family) -> None:
    """A node's ports are many Services' beside the kubelet's."""
    build = pin_build(where)
    to = writer(build, family)
    serve(to, "evil", 10250, FrontendKind.NODE_PORT)
    to.set_service_networks(map(parse_network, NETWORKS[family]))
    assert len(vacate(where, [place(family, 10250, KUBELET)])) == 1
    assert frontends(build, family) == []
    assert len(dump(View(build, family), "service_networks")) == 3


def test_nothing_pinned_is_nothing_to_do(where: Pins) -> None:
    assert vacate(where, [place(Family.IPV4)]) == []

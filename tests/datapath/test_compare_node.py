"""Whatever is changed of what the maps say of the node itself is found, and put right."""

import time
from collections.abc import Callable, Iterator
from dataclasses import replace

import pytest

from ebpf_lb.agent.programming.node_tables import NodeTables
from ebpf_lb.datapath.clock import ticks_per_second
from ebpf_lb.datapath.compare_node import WantedInterface, WantedNode, differences
from ebpf_lb.datapath.pins import Build
from ebpf_lb.datapath.reader import View
from ebpf_lb.datapath.writer import NODE_SOURCE_ID, FamilyMaps, FamilyWriter
from ebpf_lb.model.values import Family, parse_address, parse_network
from tests.datapath.by_hand import change, index

from ..capabilities import BPF, BPFFS, ROOT, needs
from .pinned import pin_build, pins

pytestmark = needs(ROOT, BPF, BPFFS)

OWN, GATEWAY = parse_address("172.30.0.11"), parse_address("10.244.1.1")
MAC = bytes.fromhex("02000000000a")
WANTED = WantedNode(
    {
        2: WantedInterface("eth0", 0, OWN, MAC, False),
        3: WantedInterface("cni0", 0, GATEWAY, b"", False),
        4: WantedInterface("veth4", 3, GATEWAY, MAC, True),
        9: WantedInterface("sit1", 0, None, b"", False),
    },
    OWN,
    frozenset({parse_network("10.244.0.0/16"), parse_network("10.245.0.0/16")}),
    (parse_network("10.96.0.0/12"), parse_network("10.112.0.0/16")),
    netns_cookie=7,
    masquerade_all=True,
    reject_per_second=1000,
)
NUMBERS = {OWN: 40, GATEWAY: 41, None: 0}


@pytest.fixture
def build() -> Iterator[Build]:
    with pins("compare-node") as where:
        yield pin_build(where)


@pytest.fixture
def write(build: Build) -> Callable[[], list[str]]:
    """All of it, as an agent does; what was otherwise."""
    writer = FamilyWriter(FamilyMaps.open(build, Family.IPV4), time.monotonic, ticks_per_second())
    writer.adopt()

    def interfaces() -> None:
        writer.set_snat_source(NODE_SOURCE_ID, OWN)
        for address, number in NUMBERS.items():
            if address:
                writer.set_snat_source(number, address)
        for number, one in WANTED.interfaces.items():
            mac = one.mac or bytes(6)
            writer.set_interface(number, one.bridge, NUMBERS[one.source], mac, one.peer)
        for number in writer.interfaces() - WANTED.interfaces.keys():
            writer.delete_interface(number)

    tables = NodeTables(
        {Family.IPV4: writer},
        interfaces,
        lambda: writer.set_pod_networks(WANTED.pod_networks or ()),
        lambda: assert_room(writer.set_service_networks(WANTED.service_networks)),
        lambda: writer.set_config(7, True, 1000),
        writer.set_crc32c_shifts,
    )
    tables.mend()
    return tables.mend


def assert_room(left_over: object) -> None:
    assert left_over == ()


def found(build: Build, wanted: WantedNode = WANTED) -> list[str]:
    return list(differences(View(build, Family.IPV4), wanted))


def test_what_was_written_is_as_planned(build: Build, write: Callable[[], list[str]]) -> None:
    assert found(build) == []
    assert write() == []


def test_what_somebody_changed_is_found_and_put_right(
    build: Build, write: Callable[[], list[str]]
) -> None:
    layout = View(build, Family.IPV4).layout
    interface, key = layout.struct("interface"), layout.struct("network_key")
    veth = {"bridge": 3, "source_id": 41, "flags": 1, "mac": MAC}
    pods = key.pack(prefix_length=16, address=parse_address("10.244.0.0"))
    more = key.pack(prefix_length=8, address=parse_address("11.0.0.0"))
    config = layout.struct("config")
    settings = {"node_netns_cookie": 7, "flags": 3, "reject_per_second": 1000}
    cases: list[tuple[str, bytes, bytes | None, str]] = [
        ("interfaces", index(4), None, "veth4: it has no entry among the interfaces"),
        ("interfaces", index(8), interface.pack(**veth), "index 8 has an entry, and nobody asks"),
        *(
            (
                "interfaces",
                index(4),
                interface.pack(**veth | other),
                f"veth4: its entry has another {what}",
            )
            for other, what in (
                ({"bridge": 2}, "bridge"),
                ({"source_id": 40}, "address to masquerade with"),
                ({"source_id": 0}, "address to masquerade with"),
                ({"mac": bytes(6)}, "MAC address"),
                ({"flags": 0}, "way to its peer"),
            )
        ),
        ("snat_sources", index(NODE_SOURCE_ID), bytes(4), "the node's own address is none"),
        ("snat_sources", index(41), OWN, "cni0: its entry has another address to masquerade with"),
        ("pod_networks", pods, None, "the pod network 10.244.0.0/16 is missing"),
        ("pod_networks", more, b"\1", "the pod network 11.0.0.0/8 is in the maps, and nobody"),
        ("service_networks", index(0), bytes(layout.struct("service_networks").size),
         "the ServiceCIDR 10.96.0.0/12 is missing"),
        *(
            ("config", index(0), config.pack(**settings | other), what)
            for other, what in (
                ({"node_netns_cookie": 8}, "the node's network namespace"),
                ({"flags": 2}, "masqueradeAll"),
                ({"flags": 1}, "whether the pods' networks are known"),
                ({"reject_per_second": 0}, "the limit of refusals"),
            )
        ),
        ("crc32c_shifts", index(5), bytes(layout.struct("crc32c_shift").size), "SCTP's checksum"),
    ]  # fmt: skip
    for name, where, value, says in cases:
        change(build, name, where, value)
        sentences = found(build)
        assert any(says in one for one in sentences), (says, sentences)
        mended = write()
        assert len(mended) == 1 and f"ipv4 entries of the map {name} " in mended[0], (says, mended)
        assert found(build) == [], says
        assert write() == []


def test_what_is_not_known_yet_is_not_compared(
    build: Build, write: Callable[[], list[str]]
) -> None:
    assert found(build, replace(WANTED, pod_networks=None)) == []
    assert len(found(build, replace(WANTED, pod_networks=frozenset()))) == 3

"""Golden bytes: what the layouts must make of a value, written by hand from bpf/ground/layout.h."""

import pytest

from ebpf_lb.datapath.layout import load
from ebpf_lb.model.values import Family

FOUR, SIX = Family.IPV4, Family.IPV6
CLIENT4, VIP4, BACKEND4 = bytes([10, 244, 1, 2]), bytes([10, 96, 0, 20]), bytes([10, 244, 2, 7])
CLIENT6 = bytes.fromhex("fd000010024400010000000000000002")
VIP6 = bytes.fromhex("fd000010009600000000000000000020")
BACKEND6 = bytes.fromhex("fd000010024400020000000000000007")

WORD = 0x01_02_0304_0B_AABBCC  # source, generation, service, TCP and NEW, time
WORD_BYTES = "cc bb aa 0b 04 03 02 01"
FLOW_PORTS = "9c40 0050 24a0 fde8"  # 40000, 80, 9376, 65000, in network order


def flow(client: bytes, vip: bytes, backend: bytes) -> dict[str, object]:
    return {
        "word": WORD,
        "client": client,
        "vip": vip,
        "backend": backend,
        "client_port": 40000,
        "vip_port": 80,
        "backend_port": 9376,
        "snat_port": 65000,
    }


GOLDEN = [
    (FOUR, "frontend_key", {"address": VIP4, "port": 80, "protocol": 6}, "0a600014 0050 06 00"),
    (
        SIX,
        "frontend_key",
        {"address": VIP6, "port": 443, "protocol": 17},
        "fd000010009600000000000000000020 01bb 11 00",
    ),
    *(
        (family, "frontend", {"service_id": 0x1234, "kind": 3, "flags": 2}, "3412 03 02")
        for family in Family
    ),
    *(
        (
            family,
            "service",
            {"cluster": 3 << 32 | 7, "local": 1 << 32 | 16, "affinity_timeout": 80, "flags": 1},
            "07000000 03000000 10000000 01000000 50000000 01 000000",
        )
        for family in Family
    ),
    (
        FOUR,
        "backend",
        {"address": BACKEND4, "port": 9376, "service_id": 0x0304, "flags": 5, "weight": 7},
        "0af40207 24a0 0403 05 07 0000",
    ),
    (
        SIX,
        "backend",
        {"address": BACKEND6, "port": 9376, "service_id": 0x0304, "flags": 5, "weight": 7},
        "fd000010024400020000000000000007 24a0 0403 05 07 0000",
    ),
    (
        FOUR,
        "flow",
        flow(CLIENT4, VIP4, BACKEND4),
        WORD_BYTES + "0af40102 0a600014 0af40207" + FLOW_PORTS + "00000000",
    ),
    (
        SIX,
        "flow",
        flow(CLIENT6, VIP6, BACKEND6),
        WORD_BYTES
        + "fd000010024400010000000000000002"
        + "fd000010009600000000000000000020"
        + "fd000010024400020000000000000007"
        + FLOW_PORTS,
    ),
    (FOUR, "affinity_key", {"client": CLIENT4, "service_id": 5}, "0af40102 0500 0000"),
    (SIX, "affinity", {"backend_id": 0x010203, "last_used": 9}, "03020100 09000000"),
    (
        FOUR,
        "source_range_key",
        {"prefix_length": 56, "service_id": 5, "address": CLIENT4},
        "38000000 05000000 0af40102",
    ),
    (
        SIX,
        "network_key",
        {"prefix_length": 48, "address": CLIENT6},
        "30000000 fd000010024400010000000000000002",
    ),
]


@pytest.mark.parametrize(
    ("family", "name", "values", "expected"),
    GOLDEN,
    ids=[f"{name}-{family.directory}" for family, name, _, _ in GOLDEN],
)
def test_golden_bytes(family: Family, name: str, values: dict[str, object], expected: str) -> None:
    layout = load(family).struct(name)
    assert layout.pack(**values) == bytes.fromhex(expected)
    assert layout.unpack(bytes.fromhex(expected))._asdict() == values

"""What both languages compute alike: the filter's hash and the CRC tables."""

import ipaddress
from enum import IntEnum, IntFlag

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ebpf_lb.datapath import clock
from ebpf_lb.datapath.crc32c import apply, shift_columns
from ebpf_lb.datapath.layout import load
from ebpf_lb.datapath.loader.source import capacities
from ebpf_lb.datapath.settings import Settings
from ebpf_lb.datapath.writer.hashes import end_bits, filter_bit
from ebpf_lb.model.values import Family
from ebpf_lb.plan.forwarding import FrontendFlag, FrontendKind


def crc_register(data: bytes, register: int = 0) -> int:
    """CRC32c bit by bit, without initial value and final inversion."""
    for byte in data:
        register ^= byte
        for _ in range(8):
            register = (register >> 1) ^ (0x82F63B78 if register & 1 else 0)
    return register


def test_the_polynomial_is_that_of_crc32c() -> None:
    # RFC 3720 B.4: 32 bytes of zeros give aa36918a, sent as 8a9136aa
    assert crc_register(bytes(32), 0xFFFFFFFF) ^ 0xFFFFFFFF == 0x8A9136AA


@given(st.binary(min_size=1, max_size=40), st.integers(0, 10))
def test_columns_lengthen_a_message_by_zeros(data: bytes, exponent: int) -> None:
    assert apply(shift_columns(exponent), crc_register(data)) == crc_register(
        data + bytes(1 << exponent)
    )


def test_filter_bits_by_hand() -> None:
    # hash_filter of bpf/ground/hash.h, with its steps written out
    first = 0x0100000A * 0x9E3779B1 % 2**32
    first ^= first >> 15
    first = first * 0x85EBCA6B % 2**32 >> 16  # 1,024 words have 65,536 bits
    assert filter_bit(bytes([10, 0, 0, 1]), 1024) == (first // 64, first % 64)
    hashed = 0
    for word in (0x000000FD, 0, 0, 0x01000000):
        hashed = (hashed ^ word) * 0x9E3779B1 % 2**32
        hashed ^= hashed >> 15
    address = bytes([0xFD]) + bytes(14) + b"\1"
    hashed = hashed * 0x85EBCA6B % 2**32 >> 14
    assert filter_bit(address, 4096) == (hashed // 64, hashed % 64)


@pytest.mark.parametrize(
    ("services", "pods"),
    [
        ("10.96.0.0", "10.128.0.0"),
        ("10.96.0.0", "10.244.0.0"),
        ("172.20.0.0", "10.0.0.0"),
        ("fd00:10:96::", "fd00:10:128::"),
    ],
)
def test_filters_err_seldom_about_addresses_that_follow_each_other(
    services: str, pods: str
) -> None:
    """As those of ten thousand Services and their pods do; by chance one in 200 shares a bit."""

    def addresses(first: str, count: int) -> list[bytes]:
        return [(ipaddress.ip_address(first) + number).packed for number in range(count)]

    words = capacities(Settings())["FILTER_WORDS"]
    filled = {filter_bit(vip, words) for vip in addresses(services, 10_000)}
    wrong = sum(filter_bit(pod, words) in filled for pod in addresses(pods, 20_000))
    assert wrong <= 20_000 / 100
    words = capacities(Settings())["KNOWN_ENDS_WORDS"]
    ends = set(end_bits((vip + bytes([0, 80]) for vip in addresses(services, 10_000)), words))
    of_pods = end_bits((pod + bytes([31, 144]) for pod in addresses(pods, 20_000)), words)
    assert sum(bit in ends for bit in of_pods) <= 20_000 / 100


@pytest.mark.parametrize("family", list(Family))
@pytest.mark.parametrize(
    ("ours", "prefix"), [(FrontendKind, "frontend_kind"), (FrontendFlag, "frontend_flag")]
)
def test_kinds_and_flags_of_frontends(
    ours: type[IntEnum | IntFlag], prefix: str, family: Family
) -> None:
    """The plan knows no headers, so it has their numbers of its own."""
    told = {name.removeprefix("FRONTEND_"): n for name, n in load(family).enum(prefix).items()}
    told.pop("UNSERVED", None)  # the writer's own
    assert {one.name: int(one) for one in ours} == told


def test_a_tick_is_short_and_lasts_for_the_longest_timeout() -> None:
    span_s = (1 << clock.time_bits()) / clock.ticks_per_second()
    assert span_s >= 2 * clock.LONGEST_TIMEOUT_S
    assert clock.ticks_per_second() >= 1.8

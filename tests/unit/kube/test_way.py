"""Names to addresses, and what stays when names cannot be resolved."""

import socket
from typing import Any

import pytest

from ebpf_lb.kube.way import FRESH_S, Way, host_and_port
from ebpf_lb.model.values import parse_address


class Names:
    """A resolver with a table."""

    def __init__(self, **table: list[str]) -> None:
        self.table = table
        self.asked = 0
        self.now = 0.0

    def __call__(self, name: str, port: int, **_: Any) -> list[Any]:
        self.asked += 1
        if name not in self.table:
            raise socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution")
        return [
            (socket.AF_INET6 if ":" in text else socket.AF_INET, 1, 6, "", (text, port))
            for text in self.table[name]
        ]


def ends(*texts: tuple[str, int]) -> frozenset[tuple[bytes, int]]:
    return frozenset((parse_address(address), port) for address, port in texts)


@pytest.mark.parametrize(
    ("url", "found"),
    [
        ("https://192.0.2.1:6443", ("192.0.2.1", 6443)),
        ("https://192.0.2.1", ("192.0.2.1", 443)),
        ("http://localhost/path", ("localhost", 80)),
        ("https://[2001:db8::1]:6443/x", ("2001:db8::1", 6443)),
        ("socks5://proxy", ("proxy", 1080)),
        ("https://host:99999", None),
        ("nonsense", None),
        ("", None),
    ],
)
def test_host_and_port(url: str, found: tuple[str, int] | None) -> None:
    assert host_and_port(url) == found


def test_addresses_need_no_names() -> None:
    names = Names()
    found = Way(names).ends(["https://192.0.2.1:6443", "http://[2001:db8::1]:3128", ""])
    assert found == ends(("192.0.2.1", 6443), ("2001:db8::1", 3128))
    assert names.asked == 0


def test_all_addresses_of_a_name_count() -> None:
    names = Names(api=["192.0.2.1", "192.0.2.2", "2001:db8::1"])
    found = Way(names).ends(["https://api:6443"])
    assert found == ends(("192.0.2.1", 6443), ("192.0.2.2", 6443), ("2001:db8::1", 6443))


def test_a_zone_is_left_out() -> None:
    assert Way(Names(api=["fe80::1%eth0"])).ends(["https://api"]) == ends(("fe80::1", 443))


def test_what_cannot_be_resolved_stays_as_it_was() -> None:
    names = Names(api=["192.0.2.1"])
    way = Way(names, clock=lambda: names.now)
    assert way.ends(["https://api"]) == ends(("192.0.2.1", 443))
    names.table.clear()
    names.now += 2 * FRESH_S
    assert way.ends(["https://api"]) == ends(("192.0.2.1", 443))
    assert names.asked == 2
    names.table["api"] = ["192.0.2.9"]
    assert way.ends(["https://api"]) == ends(("192.0.2.1", 443))  # just asked in vain
    assert way.ends(["https://api"], again=True) == ends(("192.0.2.9", 443))


def test_nobody_waits_for_names_at_each_request() -> None:
    names = Names(api=["192.0.2.1"])
    way = Way(names, clock=lambda: names.now)
    for _ in range(10):
        way.ends(["https://api"])
    assert names.asked == 1
    names.now += FRESH_S
    way.ends(["https://api"])
    assert names.asked == 2

"""Who talks to whom, by the first bytes of a packet."""

import pytest

from ebpf_lb.datapath.reader.headers import Headers, read_headers
from ebpf_lb.model.values import Family, parse_address
from tests.support.packets import SCTP, TCP, UDP, Packet

ADDRESSES = {
    Family.IPV4: ("198.51.100.7", "10.96.0.1"),
    Family.IPV6: ("2001:db8::7", "fd00::1"),
}
NAMES = {TCP: "TCP", UDP: "UDP", SCTP: "SCTP"}


def packet(family: Family, **fields: object) -> Packet:
    return Packet(*ADDRESSES[family], source_port=40000, destination_port=80, **fields)  # type: ignore[arg-type]


@pytest.mark.parametrize("family", list(Family))
@pytest.mark.parametrize("protocol", [TCP, UDP, SCTP])
@pytest.mark.parametrize("link_header", [14, 0])
def test_tuples(family: Family, protocol: int, link_header: int) -> None:
    frame = packet(family, protocol=protocol).frame()[14 - link_header :]
    source, destination = map(parse_address, ADDRESSES[family])
    wanted = Headers(NAMES[protocol], source, 40000, destination, 80)
    assert read_headers(frame, link_header, family) == wanted


@pytest.mark.parametrize("family", list(Family))
def test_a_later_fragment_says_no_ports(family: Family) -> None:
    frame = packet(family, protocol=UDP, fragment=(1480, False), payload=b"x" * 40).frame()
    found = read_headers(frame, 14, family)
    assert found is not None
    assert (found.protocol, found.source_port, found.destination_port) == ("UDP", 0, 0)


@pytest.mark.parametrize("family", list(Family))
def test_every_beginning_is_read_without_a_mistake(family: Family) -> None:
    frame = packet(family).frame()
    for length in range(len(frame)):
        found = read_headers(frame[:length], 14, family)
        assert (found is None) == (length < 14 + (20 if family is Family.IPV4 else 40))

"""A file of packets, read back by the format's rules."""

import io
import struct
from collections.abc import Iterator

from ebpf_lb.cli.pcapng import PcapNg


class Kept(io.BytesIO):
    def close(self) -> None:
        """Its content is asked for afterwards."""


def blocks(data: bytes) -> Iterator[tuple[int, bytes]]:
    while data:
        kind, length = struct.unpack_from("=II", data)
        assert length % 4 == 0
        assert struct.unpack_from("=I", data, length - 4) == (length,)
        yield kind, data[8 : length - 4]
        data = data[length:]


def options(data: bytes) -> dict[int, bytes]:
    found = {}
    while data:
        code, length = struct.unpack_from("=HH", data)
        if code == 0:
            assert data == bytes(4)
            return found
        found[code] = data[4 : 4 + length]
        data = data[4 + length + -length % 4 :]
    raise AssertionError("no end of options")


def test_packets_with_comments() -> None:
    file = Kept()
    time_ns = 1_700_000_000_123_456_789
    with PcapNg(file, "ebpf-lb 1") as written:
        written.write(b"abcde", 60, time_ns, "eth0", True, "drop: NO_ROUTE")
        written.write(b"xyzw", 4, time_ns + 1, "tun0", False, "é")
        written.write(b"1", 1, time_ns, "eth0", True, "")
    found = list(blocks(file.getvalue()))
    assert [kind for kind, _ in found] == [0x0A0D0D0A, 1, 6, 1, 6, 6]
    assert struct.unpack_from("=IHHq", found[0][1]) == (0x1A2B3C4D, 1, 0, -1)
    assert [struct.unpack_from("=H", body)[0] for kind, body in found if kind == 1] == [1, 101]
    assert options(found[1][1][8:]) == {2: b"eth0", 9: b"\x09"}
    packets = [body for kind, body in found if kind == 6]
    number, high, low, kept, whole = struct.unpack_from("=5I", packets[0])
    assert (number, kept, whole, high << 32 | low) == (0, 5, 60, time_ns)
    assert packets[0][20:25] == b"abcde"
    assert options(packets[0][28:]) == {1: b"drop: NO_ROUTE"}
    assert struct.unpack_from("=I", packets[1]) == (1,)
    assert options(packets[1][24:]) == {1: "é".encode()}
    assert struct.unpack_from("=I", packets[2]) == (0,)

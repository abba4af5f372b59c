"""Packets in a file that Wireshark and tcpdump read, each with a comment: the pcapng format
(draft-ietf-opsawg-pcapng), as much of it as that takes."""

import struct
from types import TracebackType
from typing import BinaryIO, Self

_SECTION, _INTERFACE, _PACKET = 0x0A0D0D0A, 1, 6
_BYTE_ORDER, _VERSION = 0x1A2B3C4D, (1, 0)
_ETHERNET, _RAW = 1, 101  # link types
_OPTION_END, _OPTION_COMMENT, _OPTION_NAME, _OPTION_RESOLUTION = 0, 1, 2, 9
_NANOSECONDS = 9  # powers of ten


class PcapNg:
    """A file that is being written, for `with`."""

    def __init__(self, file: BinaryIO, application: str) -> None:
        self._file = file
        self._interfaces: dict[tuple[str, bool], int] = {}
        length_unknown = -1
        self._block(
            _SECTION,
            struct.pack("=IHHq", _BYTE_ORDER, *_VERSION, length_unknown)
            + _options({4: application.encode()}),
        )

    def write(
        self,
        packet: bytes,
        whole_bytes: int,
        time_ns: int,
        interface: str,
        ethernet: bool,
        comment: str,
    ) -> None:
        """time_ns: since 1970. whole_bytes: of the packet, of which `packet` is the beginning."""
        number = self._interface(interface, ethernet)
        self._block(
            _PACKET,
            struct.pack(
                "=IIIII", number, time_ns >> 32, time_ns & 0xFFFFFFFF, len(packet), whole_bytes
            )
            + _padded(packet)
            + _options({_OPTION_COMMENT: comment.encode()}),
        )
        self._file.flush()

    def _interface(self, name: str, ethernet: bool) -> int:
        key = (name, ethernet)
        if key not in self._interfaces:
            self._interfaces[key] = len(self._interfaces)
            self._block(
                _INTERFACE,
                struct.pack("=HHI", _ETHERNET if ethernet else _RAW, 0, 0)
                + _options(
                    {_OPTION_NAME: name.encode(), _OPTION_RESOLUTION: bytes([_NANOSECONDS])}
                ),
            )
        return self._interfaces[key]

    def _block(self, kind: int, body: bytes) -> None:
        length = struct.pack("=I", 12 + len(body))
        self._file.write(struct.pack("=I", kind) + length + body + length)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._file.close()


def _padded(data: bytes) -> bytes:
    return data + bytes(-len(data) % 4)


def _options(options: dict[int, bytes]) -> bytes:
    parts = [struct.pack("=HH", code, len(data)) + _padded(data) for code, data in options.items()]
    return b"".join(parts) + struct.pack("=HH", _OPTION_END, 0)

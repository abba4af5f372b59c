"""How a Service port is called in the `names` map: a text from which all of it comes back."""

import struct
from collections import Counter
from collections.abc import Callable, Sequence

from ebpf_lb.datapath.writer.batch import Rows, write
from ebpf_lb.datapath.writer.change import Change
from ebpf_lb.datapath.writer.family_maps import FamilyMaps
from ebpf_lb.datapath.writer.pools import Exhausted
from ebpf_lb.errors import UserError
from ebpf_lb.model.values import Family, Protocol
from ebpf_lb.plan.forwarding import ServicePortName

_INDEX = struct.Struct("=I")


class NotProgrammed(UserError):
    """The kernel does not hold what was asked for this Service port; what it held goes on."""

    what = "is not programmed"

    def __init__(self, name: ServicePortName, family: Family, why: str) -> None:
        number = "IPv4" if family is Family.IPV4 else "IPv6"
        super().__init__(
            f"Service port {name} ({name.protocol.name}, {number}) {self.what}: {why}."
        )
        self.name = name
        self.family = family


class NotHashed(NotProgrammed):
    """Everything is as it was asked for, but for the tables by which connections are spread."""

    what = "is served without consistent hashing and weights"


def format_name(name: ServicePortName) -> str:
    """`namespace/name:port/PROTO`, without the colon for an unnamed port.

    Exact, because the API allows neither slash nor colon in any of the parts (RFC 1123 labels).
    """
    return f"{name}/{name.protocol.name}"


def parse_name(text: str) -> ServicePortName:
    """The inverse; ValueError if `text` is not of that form."""
    parts = text.split("/")
    if len(parts) != 3 or parts[2] not in Protocol.__members__:
        raise ValueError(f"{text!r} is not namespace/name:port/PROTOCOL")
    name, _, port = parts[1].partition(":")
    return ServicePortName(parts[0], name, port, Protocol[parts[2]])


class NameTable:
    """Written before everything else of a Service port, removed after it."""

    def __init__(self, maps: FamilyMaps, stats: Counter[str]) -> None:
        self._table = maps.names
        self._stats = stats
        self._pack = maps.layout.struct("service_name").pack

    def value(self, name: ServicePortName) -> bytes:
        """Exhausted if it is too long."""
        text = format_name(name)
        try:
            return self._pack(text=text)
        except TypeError as error:
            raise Exhausted(f"its name is too long ({len(text)} characters)") from error

    def add(self, changes: Sequence[Change], written: Callable[[Change], None]) -> None:
        """Of new Service ports. `written`: told of each that is there."""

        def note(change: Change, count: int) -> None:
            self._stats["names"] += count
            if count:
                written(change)

        rows = [
            Rows(change, 1, _INDEX.pack(change.service_id), change.name_value) for change in changes
        ]
        write(self._table, rows, note)

    def remove(self, number: int) -> None:
        """OSError."""
        if self._table.delete(_INDEX.pack(number)):
            self._stats["names"] += 1

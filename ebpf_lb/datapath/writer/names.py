"""How a Service port is called in the `names` map: a text from which all of it comes back."""

from ebpf_lb.errors import UserError
from ebpf_lb.model.values import Family, Protocol
from ebpf_lb.plan.forwarding import ServicePortName


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
    """Everything is as it was asked for, but that connections are spread at random."""

    what = "is served without consistent hashing"


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

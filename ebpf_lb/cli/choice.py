"""Which Services, backends and clients somebody means: filters that several commands have."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

import click

from ebpf_lb.cli import names
from ebpf_lb.errors import UserError
from ebpf_lb.model.values import Family, Network, parse_network

F = TypeVar("F", bound=Callable[..., Any])


@dataclass(frozen=True, slots=True)
class Place:
    """An address or network, and perhaps a port."""

    network: Network
    port: int | None = None

    def holds(self, address: bytes, port: int) -> bool:
        return address in self.network and self.port in (None, port)

    @property
    def whole(self) -> bytes:
        """The address itself, where it is one; else nothing."""
        full = self.network.prefix_length == 8 * len(self.network.address)
        return self.network.address if full else b""


class PlaceType(click.ParamType):  # type: ignore[type-arg]
    """ADDRESS, ADDRESS:PORT, [ADDRESS]:PORT or CIDR."""

    name = "address"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        if isinstance(value, Place):
            return value
        text, port = str(value), None
        if text.startswith("[") and "]" in text:
            text, _, rest = text[1:].partition("]")
            port = rest.removeprefix(":") or None
        elif text.count(":") == 1:
            text, _, port = text.partition(":")
        try:
            number = None if port is None else int(port)
            if number is not None and not 0 <= number < 1 << 16:
                raise ValueError
            return Place(parse_network(text), number)
        except ValueError:
            self.fail(f"{value!r} is not an address, an address with a port, or a CIDR.")


def service_option(command: F) -> F:
    return click.option(
        "--service",
        "-s",
        metavar="[NAMESPACE/]NAME[:PORT]",
        shell_complete=names.services,
        help="Only of this Service.",
    )(command)


def backend_option(command: F) -> F:
    return click.option(
        "--backend",
        type=PlaceType(),
        metavar="ADDRESS[:PORT]|CIDR",
        shell_complete=names.backends,
        help="Only with this backend.",
    )(command)


def client_option(command: F) -> F:
    return click.option(
        "--client",
        "--from",
        type=PlaceType(),
        metavar="ADDRESS[:PORT]|CIDR",
        help="Only of this client.",
    )(command)


def family_option(command: F) -> F:
    return click.option(
        "--family", type=click.Choice(["ipv4", "ipv6"]), help="Only of this address family."
    )(command)


def families(wanted: str | None) -> list[Family]:
    return [one for one in Family if wanted in (None, one.directory)]


def is_service(wanted: str | None, name: str | None) -> bool:
    """Whether `namespace/name:port` is what somebody calls by parts of it; None: all are."""
    if wanted is None:
        return True
    if name is None:
        return False
    if wanted == name:
        return True
    short = name.partition("/")[2] if "/" not in wanted else name
    return wanted == short or wanted == short.partition(":")[0]


def must_know(wanted: str | None, known: set[str]) -> None:
    """UserError with what is alike if there is no such Service."""
    if wanted is None or any(is_service(wanted, name) for name in known):
        return
    part = wanted.partition("/")[2] or wanted
    alike = sorted(name for name in known if part.partition(":")[0] in name)[:5]
    hint = f"; there is {', '.join(alike)}" if alike else ""
    raise UserError(
        f"This node has no Service {wanted!r}{hint}. `ebpf-lb services` lists them; headless and "
        "ExternalName Services, and those of another proxy's label, are not served."
    )

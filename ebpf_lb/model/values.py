"""Values that every layer speaks in.

Addresses are `bytes` in network order, 4 of them for IPv4 and 16 for IPv6: that is what the maps
hold, it is compact, and the length tells the family. `format_address` is for people.
"""

import ipaddress
import socket
from dataclasses import dataclass
from enum import IntEnum


class Family(IntEnum):
    """An address family; the number is the IP version."""

    IPV4 = 4
    IPV6 = 6

    @property
    def address_bytes(self) -> int:
        return 4 if self is Family.IPV4 else 16

    @property
    def directory(self) -> str:
        """Its name in bpffs and in output."""
        return "ipv4" if self is Family.IPV4 else "ipv6"


class Protocol(IntEnum):
    """A transport protocol that Services speak; the number is IANA's."""

    TCP = 6
    UDP = 17
    SCTP = 132


@dataclass(frozen=True, slots=True, order=True)
class Network:
    """A CIDR: `address` with its host bits zero, and a prefix length in bits."""

    address: bytes
    prefix_length: int

    @property
    def family(self) -> Family:
        return family_of(self.address)

    @property
    def mask(self) -> bytes:
        """As an address: the prefix's bits are set."""
        width = len(self.address) * 8
        return ((1 << width) - (1 << width - self.prefix_length)).to_bytes(len(self.address))

    def __contains__(self, address: bytes) -> bool:
        if len(address) != len(self.address):
            return False
        shift = len(address) * 8 - self.prefix_length
        return int.from_bytes(address) >> shift == int.from_bytes(self.address) >> shift

    def __str__(self) -> str:
        return f"{format_address(self.address)}/{self.prefix_length}"


def family_of(address: bytes) -> Family:
    return Family.IPV4 if len(address) == 4 else Family.IPV6


def parse_address(text: str) -> bytes:
    """The address that `text` spells; ValueError if it is none (nor with an IPv6 zone)."""
    # inet_pton: the same grammar as ipaddress, 30 times as fast; a cold start reads 200,000 of them
    try:
        return socket.inet_pton(socket.AF_INET6 if ":" in text else socket.AF_INET, text)
    except OSError:
        raise ValueError(f"{text!r} is not an IP address") from None


def parse_network(text: str) -> Network:
    """The network that `text` spells, white space and host bits ignored; ValueError if none."""
    network = ipaddress.ip_network(text.strip(), strict=False)
    return Network(network.network_address.packed, network.prefixlen)


def format_address(address: bytes) -> str:
    return str(ipaddress.ip_address(address))


def format_endpoint(address: bytes, port: int) -> str:
    """`10.0.0.1:80` or `[fd00::1]:80`."""
    text = format_address(address)
    return f"[{text}]:{port}" if len(address) == 16 else f"{text}:{port}"


def is_nobodys(address: bytes) -> bool:
    """Whether it is not one machine's towards others: unspecified, loopback, or a group's."""
    if len(address) == 4:
        return address[0] in (0, 127) or address[0] >= 224
    return address[0] == 0xFF or (address[:15] == bytes(15) and address[15] in (0, 1))

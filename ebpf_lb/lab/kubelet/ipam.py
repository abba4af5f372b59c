"""Addresses for a node's pods, given out as the CNI plugin host-local does: one after the other, so
that an address comes back as late as possible."""

import ipaddress

from ebpf_lb.errors import UserError
from ebpf_lb.lab.names import Cidr, Interface, NodeNames

_END = 255  # the broadcast address of an IPv4 network of 256; IPv6 gets the same numbers


class NoAddressError(UserError):
    """A node's pod network is used up."""


class AddressPool:
    """One node's. The first address of each network is the gateway's, and no pod's."""

    def __init__(self, node: NodeNames):
        self._networks = node.pod_segment.networks(node.families)
        self._used: set[str] = set()
        self._last = 1

    def take(self) -> tuple[Interface, ...]:
        """An address of each family, with the same number in its network; NoAddressError."""
        for number in [*range(self._last + 1, _END), *range(2, self._last + 1)]:
            addresses = tuple(network[number] for network in self._networks)
            if not any(str(address) in self._used for address in addresses):
                self._last = number
                self._used.update(map(str, addresses))
                return tuple(
                    _interface(address, network)
                    for address, network in zip(addresses, self._networks, strict=True)
                )
        raise NoAddressError(f"no address is free in {', '.join(map(str, self._networks))}")

    def give_back(self, addresses: tuple[str, ...]) -> None:
        self._used.difference_update(addresses)


def _interface(address: ipaddress.IPv4Address | ipaddress.IPv6Address, network: Cidr) -> Interface:
    return ipaddress.ip_interface((address, network.prefixlen))

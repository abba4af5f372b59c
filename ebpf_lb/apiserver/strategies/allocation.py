"""ClusterIPs and nodePorts: which are taken, and the choice of a free one.

What is taken is read off the stored Services as they change, so an address or a port is free at
the very moment when no Service has it any more, and a refused or dry-run request takes nothing.
Ranges are split as upstream's (KEP-3070, KEP-3668): the lower band is left for addresses and ports
that people ask for by number.
"""

import ipaddress
import itertools
import random
from collections.abc import Callable, Iterable
from typing import Generic, TypeVar

from ebpf_lb.apiserver.kinds import SERVICE, SERVICE_CIDR
from ebpf_lb.apiserver.store import Change, Store, Stored

Item = TypeVar("Item")
IPNetwork = ipaddress.IPv4Network | ipaddress.IPv6Network

# How many addresses of a range are looked at; IPv6 ranges have more than anyone counts.
_MAX_RANGE = 2**20


class AllocationError(Exception):
    """Nothing is free, or what was asked for is taken or out of range."""


def reserved_band(size: int, step: int, smallest: int, largest: int) -> int:
    """How many of the first numbers are given out only on request or when all others are gone."""
    return 0 if size <= smallest else min(max(smallest, size // step), largest)


def addresses_of(spec: dict[str, object]) -> list[str]:
    """A Service's ClusterIPs; none for headless ones."""
    addresses = spec.get("clusterIPs")
    listed = addresses if isinstance(addresses, list) else []
    return [str(address) for address in listed if address not in ("None", "")]


def node_ports_of(stored: Stored) -> Iterable[tuple[str, int]]:
    """(protocol, number) of everything that a Service takes from the nodePort range."""
    for port in stored.spec.get("ports", ()):
        if port.get("nodePort"):
            yield port.get("protocol", "TCP"), port["nodePort"]
    if number := stored.spec.get("healthCheckNodePort"):
        yield "TCP", number


class _Taken(Generic[Item]):
    """Which Service holds which item."""

    def __init__(self, items: Callable[[Stored], Iterable[Item]]) -> None:
        self._items = items
        self.holder: dict[Item, str] = {}

    def observe(self, change: Change) -> None:
        if change.subject.kind is not SERVICE:
            return
        if change.before:
            for item in self._items(change.before):
                self.holder.pop(item, None)
        if change.after:
            for item in self._items(change.after):
                self.holder[item] = change.after.key


class ClusterIPs:
    """The addresses of all ServiceCIDRs."""

    def __init__(self, store: Store, rng: random.Random) -> None:
        self._store = store
        self._rng = rng
        self._taken = _Taken(lambda stored: addresses_of(stored.spec))
        store.subscribe(self._taken.observe)

    def ranges(self, family: str) -> list[IPNetwork]:
        """Of `family` ("IPv4", "IPv6"), in the order of the ServiceCIDRs."""
        networks = [
            ipaddress.ip_network(text)
            for stored in self._store.objects(SERVICE_CIDR)
            if not stored.terminating
            for text in stored.spec.get("cidrs", ())
        ]
        return [network for network in networks if f"IPv{network.version}" == family]

    def primary(self) -> str:
        """The family that Services have by default: that of the first range."""
        first = self._store.get(SERVICE_CIDR, "", "kubernetes")
        assert first is not None, "made at start"
        return f"IPv{ipaddress.ip_network(first.spec['cidrs'][0]).version}"

    def check(self, address: str, owner: str) -> None:
        """Raises AllocationError unless `owner` ("namespace/name") may have `address`."""
        parsed = ipaddress.ip_address(address)
        ranges = self.ranges(f"IPv{parsed.version}")
        if not any(parsed in network for network in ranges):
            raise AllocationError(
                f"failed to allocate IP {address}: the provided network does not match the "
                f"current range: {', '.join(map(str, ranges))}"
            )
        if self._taken.holder.get(str(parsed), owner) != owner:
            raise AllocationError(
                f"failed to allocate IP {address}: provided IP is already allocated"
            )

    def choose(self, family: str) -> str:
        """A free address. Raises AllocationError if there is none."""
        for network in self.ranges(family):
            # Neither the network's own address nor IPv4's broadcast address is given out.
            last = network.num_addresses - (1 if network.version == 4 else 0)
            size = min(last - 1, _MAX_RANGE)
            base = int(network.network_address) + 1
            band = reserved_band(size, step=16, smallest=16, largest=256)
            index = _choose(size, band, self._rng, self._is_taken(network, base))
            if index is not None:
                return str(_address(network, base + index))
        raise AllocationError(f"range is full: no free {family} address is left for Services")

    def _is_taken(self, network: IPNetwork, base: int) -> Callable[[int], bool]:
        return lambda index: str(_address(network, base + index)) in self._taken.holder


def _address(network: IPNetwork, number: int) -> ipaddress.IPv4Address | ipaddress.IPv6Address:
    return type(network.network_address)(number)


class NodePorts:
    """The numbers of the nodePort range, for each protocol."""

    def __init__(self, store: Store, rng: random.Random, first: int, last: int) -> None:
        self.first, self.last = first, last
        self._rng = rng
        self._taken = _Taken(node_ports_of)
        store.subscribe(self._taken.observe)

    def check(self, protocol: str, port: int, owner: str) -> None:
        """Raises AllocationError unless `owner` ("namespace/name") may have `port`."""
        if not self.first <= port <= self.last:
            raise AllocationError(
                "provided port is not in the valid range. The range of valid ports is "
                f"{self.first}-{self.last}"
            )
        if self._taken.holder.get((protocol, port), owner) != owner:
            raise AllocationError("provided port is already allocated")

    def choose(self, protocol: str, avoid: set[tuple[str, int]]) -> int:
        """A free number that is not in `avoid` either. Raises AllocationError if there is none."""
        size = self.last - self.first + 1
        band = reserved_band(size, step=32, smallest=16, largest=128)

        def taken(index: int) -> bool:
            item = (protocol, self.first + index)
            return item in self._taken.holder or item in avoid

        index = _choose(size, band, self._rng, taken)
        if index is None:
            raise AllocationError("range is full: no free nodePort is left")
        return self.first + index


def _choose(size: int, band: int, rng: random.Random, taken: Callable[[int], bool]) -> int | None:
    """A random index below `size` that is not taken; the first `band` ones last of all."""
    for low, high in ((band, size), (0, band)):
        if high > low:
            start: int = rng.randrange(low, high)
            for index in itertools.chain(range(start, high), range(low, start)):
                if not taken(index):
                    return index
    return None

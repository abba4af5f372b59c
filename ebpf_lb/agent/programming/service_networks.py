"""The cluster's ServiceCIDRs: what is sent to an address in them that no Service has is dropped.

A network that holds addresses of the node's own or of pods would cut these off. Such a ServiceCIDR
is a mistake of somebody's; it is reported, and nothing is dropped for it.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Protocol

from ebpf_lb.model.key import ObjectKey
from ebpf_lb.model.service_cidr import ServiceCIDR
from ebpf_lb.model.values import Family, Network


class NetworkTable(Protocol):
    """What is asked of `datapath.writer.FamilyWriter` here."""

    def set_service_networks(self, networks: Iterable[Network]) -> tuple[Network, ...]: ...


class ServiceNetworks:
    def __init__(self, writers: Mapping[Family, NetworkTable], log: Any) -> None:
        self._writers = writers
        self._log = log
        self._known: dict[ObjectKey, ServiceCIDR] = {}
        self._listed = False
        self._written: tuple[Network, ...] | None = None
        self._left_over: tuple[Network, ...] = ()
        self.problems: tuple[str, ...] = ()
        """Of which networks nothing is dropped, and why."""

    def replace(self, cidrs: Iterable[ServiceCIDR]) -> None:
        """A complete list. Before the first one nothing is written."""
        self._known = {cidr.key: cidr for cidr in cidrs}
        self._listed = True

    def set(self, cidr: ServiceCIDR) -> None:
        self._known[cidr.key] = cidr

    def delete(self, key: ObjectKey) -> None:
        self._known.pop(key, None)

    def apply(self, addresses: Iterable[bytes], pods: Iterable[Network]) -> None:
        """Writes what differs from the last time.

        addresses: by which the cluster knows the node; pods: their networks, as far as known.
        """
        if not self._listed:
            return
        theirs = [*(Network(address, len(address) * 8) for address in addresses), *pods]
        wanted = sorted({one for cidr in self._known.values() for one in cidr.networks})
        clashes = clashing(wanted, theirs)
        networks = tuple(network for network in wanted if network not in clashes)
        if networks != self._written:
            self._left_over = self._write(networks)
            self._written = networks
        self._report(
            *(_sentence(mine, f"it holds {other}, which is not a Service's")
              for mine, other in clashes.items()),
            *(_sentence(network, "there is room for four a family") for network in self._left_over),
        )  # fmt: skip

    def write_again(self) -> None:
        """What the maps say already is left alone."""
        if self._written is not None:
            self._write(self._written)

    def _write(self, networks: tuple[Network, ...]) -> tuple[Network, ...]:
        """Returns those without room."""
        left_over: list[Network] = []
        for family, writer in self._writers.items():
            own = [network for network in networks if network.family is family]
            left_over += writer.set_service_networks(own)
        return tuple(left_over)

    def _report(self, *problems: str) -> None:
        for problem in problems:
            if problem not in self.problems:
                self._log.warning("service network", problem=problem)
        self.problems = problems


def clashing(networks: Iterable[Network], theirs: Sequence[Network]) -> dict[Network, Network]:
    """Those of `networks` that hold addresses of others', or are within them."""
    return {mine: other for mine in networks for other in theirs if _overlap(mine, other)}


def _overlap(one: Network, other: Network) -> bool:
    return one.address in other or other.address in one


def _sentence(network: Network, why: str) -> str:
    return f"What is sent to unused addresses of the ServiceCIDR {network} is not dropped: {why}."

"""The router's routes to external addresses: one for each, over all nodes that it may go to.

Ours carry a protocol number of their own in the kernel's table, so that they are known again.
"""

import ipaddress
import socket
from collections.abc import Mapping
from typing import Any

PROTOCOL = (
    171  # rtnetlink's RTA protocol field: free numbers are above 16 and not in iproute2's file
)
_UNICAST, _BLACKHOLE = 1, 6  # RTN_*

Routes = Mapping[str, tuple[str, ...]]


class Router:
    """The routing table of this thread's network namespace."""

    def __init__(self) -> None:
        from pyroute2 import IPRoute

        self._socket: Any = IPRoute()
        self._present: dict[str, tuple[str, ...]] = {}
        for address in self._found():
            self._delete(address)  # an earlier process's

    def sync(self, wanted: Routes) -> None:
        """Address -> gateways. Without a gateway what comes is dropped, as by a balancer that has
        nobody behind it. Routes are replaced in one step: no packet finds none."""
        for address in self._present.keys() - wanted.keys():
            self._delete(address)
            del self._present[address]
        for address, gateways in wanted.items():
            if self._present.get(address) != gateways:
                self._replace(address, gateways)
                self._present[address] = gateways

    def _replace(self, address: str, gateways: tuple[str, ...]) -> None:
        if not gateways:
            way: dict[str, Any] = {"type": _BLACKHOLE}
        elif len(gateways) == 1:
            way = {"type": _UNICAST, "gateway": gateways[0]}
        else:
            way = {"type": _UNICAST, "multipath": [{"gateway": g, "hops": 0} for g in gateways]}
        self._socket.route("replace", proto=PROTOCOL, **_destination(address), **way)

    def _delete(self, address: str) -> None:
        self._socket.route("del", proto=PROTOCOL, **_destination(address))

    def _found(self) -> set[str]:
        return {
            route.get_attr("RTA_DST")
            for family in (socket.AF_INET, socket.AF_INET6)
            for route in self._socket.get_routes(family=family)
            if route["proto"] == PROTOCOL
        }


def _destination(address: str) -> dict[str, Any]:
    parsed = ipaddress.ip_address(address)
    return {
        "dst": f"{parsed}/{parsed.max_prefixlen}",
        "family": socket.AF_INET if parsed.version == 4 else socket.AF_INET6,
    }

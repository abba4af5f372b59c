"""The network namespace as it is and as it changes, by netlink.

Events are applied to what was listed; if the kernel had to drop some (the socket was full), all is
listed again. Only what `Facts` hold makes a difference: carrier and counters change all the time.
"""

import errno
import socket
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

from pyroute2 import IPRoute
from pyroute2.netlink import rtnl
from pyroute2.netlink.rtnl.marshal import MarshalRtnl

from ebpf_lb.agent.network.roles import Address, Facts, Framing, Link
from ebpf_lb.datapath.attach.xdp import attached_programs
from ebpf_lb.model.values import Family, parse_address

_GROUPS = (
    rtnl.RTMGRP_LINK
    | rtnl.RTMGRP_IPV4_IFADDR
    | rtnl.RTMGRP_IPV6_IFADDR
    | rtnl.RTMGRP_IPV4_ROUTE
    | rtnl.RTMGRP_IPV6_ROUTE
)
_RECEIVE_BUFFER_BYTES = 1 << 20
_MESSAGE_BYTES = 1 << 16
_MAIN_TABLE = 254
_UNICAST = 1
_IFF_UP, _IFF_POINTOPOINT = 0x01, 0x10  # linux/if.h
# ARPHRD_ETHER, ARPHRD_LOOPBACK (addresses of zeros): linux/if_arp.h
_WITH_ETHERNET_HEADER = frozenset({1, 772})
# ARPHRD_PPP, RAWIP, TUNNEL, TUNNEL6, SIT, NONE: as the kernel's dev_is_mac_header_xmit() has it
_WITHOUT_LINK_HEADER = frozenset({512, 519, 768, 769, 776, 0xFFFE})
_GRE = frozenset({778, 823})  # ARPHRD_IPGRE, ARPHRD_IP6GRE
_FAMILIES = {int(socket.AF_INET): Family.IPV4, int(socket.AF_INET6): Family.IPV6}
# IFA_F_SECONDARY (for IPv6: TEMPORARY), DADFAILED, DEPRECATED, TENTATIVE: linux/if_addr.h
_PASSING = 0x01 | 0x08 | 0x20 | 0x40


class NodeNetwork:
    """This thread's network namespace. `facts` is right when the object is made; `follow` tells
    of every later change, from a thread of its own."""

    def __init__(self) -> None:
        self._marshal = MarshalRtnl()
        self._links: dict[int, Link] = {}
        self._addresses: dict[tuple[int, bytes], Address] = {}
        self._routes: set[tuple[Family, int]] = set()
        self._socket = socket.socket(
            socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, socket.NETLINK_ROUTE
        )
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _RECEIVE_BUFFER_BYTES)
        # subscribed before listed: what changes in between is heard
        self._socket.bind((0, _GROUPS))
        self._list()

    @property
    def facts(self) -> Facts:
        return Facts(dict(self._links), tuple(self._addresses.values()), frozenset(self._routes))

    def follow(self, sink: Callable[[Facts], None]) -> None:
        """Calls `sink` with the facts after each change, many at once where they come in bursts."""
        threading.Thread(target=self._follow, args=(sink,), name="netlink", daemon=True).start()

    def close(self) -> None:
        self._socket.close()

    def _follow(self, sink: Callable[[Facts], None]) -> None:
        told = self.facts
        while True:
            try:
                self._apply(self._socket.recv(_MESSAGE_BYTES))
                self._drain()
            except OSError as error:
                if error.errno == errno.EBADF:
                    return  # closed
                # ENOBUFS: some events are lost; anything else: lost as well, but do not spin
                if error.errno != errno.ENOBUFS:
                    time.sleep(1)
                self._list()
            now = self.facts
            if now != told:
                told = now
                sink(now)

    def _drain(self) -> None:
        while True:
            try:
                data = self._socket.recv(_MESSAGE_BYTES, socket.MSG_DONTWAIT)
            except BlockingIOError:
                return
            self._apply(data)

    def _list(self) -> None:
        self._links.clear()
        self._addresses.clear()
        self._routes.clear()
        with IPRoute() as ip:
            for message in ip.get_links():
                self._link(message, gone=False)
            for message in ip.get_addr():
                self._address(message, gone=False)
            self._list_routes(ip)

    def _list_routes(self, ip: Any) -> None:
        for family in _FAMILIES:
            for message in ip.get_default_routes(family=family, table=_MAIN_TABLE):
                self._routes.update(_ways_out(message))

    def _apply(self, data: bytes) -> None:
        routes_changed = False
        for message in self._marshal.parse(data):
            event = message["event"]
            if event in ("RTM_NEWROUTE", "RTM_DELROUTE"):
                routes_changed |= any(_ways_out(message))
                continue
            if event in ("RTM_NEWLINK", "RTM_DELLINK"):
                self._link(message, gone=event == "RTM_DELLINK")
            elif event in ("RTM_NEWADDR", "RTM_DELADDR"):
                self._address(message, gone=event == "RTM_DELADDR")
            # IPv4's routes go without a word with their interface's last address or when it is down
            routes_changed |= message.get("index") in {out for _, out in self._routes}
        if routes_changed:
            # two routes may leave by one interface, and one of them may go: look, do not count
            self._routes.clear()
            with IPRoute() as ip:
                self._list_routes(ip)

    def _link(self, message: Any, *, gone: bool) -> None:
        if message["family"] != socket.AF_UNSPEC:
            return  # a bridge's word on its port: a "deletion" is that it ceased to be one
        index = message["index"]
        if gone:
            self._links.pop(index, None)
            # IPv6 addresses and routes of an interface go without a word when it goes
            for key in [key for key in self._addresses if key[0] == index]:
                del self._addresses[key]
            self._routes = {way for way in self._routes if way[1] != index}
            return
        info = message.get_attr("IFLA_LINKINFO")
        self._links[index] = Link(
            index=index,
            name=message.get_attr("IFLA_IFNAME"),
            kind=(info.get_attr("IFLA_INFO_KIND") if info else None) or "",
            master=message.get_attr("IFLA_MASTER") or 0,
            peer_elsewhere=message.get_attr("IFLA_LINK_NETNSID") is not None,
            framing=_framing(message["ifi_type"], message["flags"]),
            up=bool(message["flags"] & _IFF_UP),
            mtu=message.get_attr("IFLA_MTU") or 0,
            xdp=tuple(sorted(attached_programs(message).values())),
            mac=_mac(message.get_attr("IFLA_ADDRESS")),
        )

    def _address(self, message: Any, *, gone: bool) -> None:
        index = message["index"]
        # of a point-to-point address, LOCAL is ours and ADDRESS the peer's
        text = message.get_attr("IFA_LOCAL") or message.get_attr("IFA_ADDRESS")
        address = parse_address(text)
        if gone:
            self._addresses.pop((index, address), None)
            return
        flags = message.get_attr("IFA_FLAGS") or message["flags"]
        self._addresses[index, address] = Address(
            index,
            address,
            message["scope"],
            passing=bool(flags & _PASSING),
            alone=message["prefixlen"] == len(address) * 8,
        )


def _framing(kind: int, flags: int) -> Framing:
    if kind in _WITH_ETHERNET_HEADER:
        return Framing.ETHERNET
    if kind in _WITHOUT_LINK_HEADER or (kind in _GRE and flags & _IFF_POINTOPOINT):
        return Framing.NONE
    return Framing.OTHER


def _ways_out(message: Any) -> Iterator[tuple[Family, int]]:
    """The interfaces by which a default route leaves; none for any other route."""
    family = _FAMILIES.get(message["family"])
    table = message.get_attr("RTA_TABLE") or message["table"]
    if family is None or message["dst_len"] or table != _MAIN_TABLE or message["type"] != _UNICAST:
        return
    out = message.get_attr("RTA_OIF")
    if out is not None:
        yield family, out
    for hop in message.get_attr("RTA_MULTIPATH") or ():
        yield family, hop["oif"]


def _mac(text: str | None) -> bytes:
    """Six bytes; b"" for none, and for addresses of another kind."""
    try:
        found = bytes.fromhex((text or "").replace(":", ""))
    except ValueError:
        return b""
    return found if len(found) == 6 else b""

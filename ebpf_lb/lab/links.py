"""Links, addresses, routes and neighbours of one network namespace, by netlink."""

import errno
import ipaddress
import os
import socket
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Self

from ebpf_lb.datapath.libbpf import Program
from ebpf_lb.lab import namespaces
from ebpf_lb.lab.names import Cidr, Interface

_IFA_F_NODAD = 0x02
_RTNH_F_ONLINK = 4
_RT_SCOPE_LINK = 253
_NUD_PERMANENT = 0x80
_NTF_SELF = 0x02

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
MTU = 1500
_XDP = 6  # BPF_PROG_TYPE_XDP
_PASS = bytes.fromhex("b700000002000000 9500000000000000")  # return XDP_PASS
VXLAN_OVERHEAD = {4: 50, 6: 70}  # bytes of Ethernet, IP, UDP and VXLAN around a packet


def _family(address: Address | Cidr | Interface) -> int:
    return socket.AF_INET if address.version == 4 else socket.AF_INET6


class Links:
    """A netlink socket in a network namespace. Errors are pyroute2's NetlinkError."""

    def __init__(self, netns: Path):
        from pyroute2 import IPRoute  # 0.1 s, which commands that build nothing need not spend

        self._netns = netns
        with namespaces.entered(netns):
            self._socket: Any = IPRoute()
        self._indexes: dict[str, int] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def close(self) -> None:
        self._socket.close()

    def index(self, name: str) -> int:
        """A link's number, remembered: for links that stay as long as this socket."""
        if name not in self._indexes:
            self._indexes[name] = self._socket.link("get", ifname=name)[0]["index"]
        return self._indexes[name]

    def up(self, name: str) -> None:
        self._socket.link("set", index=self.index(name), state="up")

    def bridge(self, name: str, mac: str, mtu: int = MTU) -> None:
        """A bridge that forwards at once. Its MAC address is set, since a bridge otherwise takes
        over those of ports that come and go, and pods would go on sending to the old one."""
        self._socket.link(
            "add", ifname=name, kind="bridge", address=mac, br_forward_delay=0, mtu=mtu, state="up"
        )

    def veth(
        self,
        name: str,
        peer: str,
        peer_netns: Path,
        *,
        bridge: str | None = None,
        hairpin: bool = False,
        mtu: int = MTU,
    ) -> None:
        """A veth pair: `name` here, up, maybe a port of `bridge`; `peer` in another namespace."""
        fd = os.open(peer_netns, os.O_RDONLY | os.O_CLOEXEC)
        try:
            port = {"master": self.index(bridge)} if bridge else {}
            self._socket.link(
                "add",
                ifname=name,
                kind="veth",
                mtu=mtu,
                state="up",
                peer={"ifname": peer, "net_ns_fd": fd, "mtu": mtu},
                **port,
            )
        finally:
            os.close(fd)
        if hairpin:
            index = self._socket.link("get", ifname=name)[0]["index"]
            self._socket.brport("set", index=index, mode=1)

    def vxlan(
        self, name: str, number: int, uplink: str, local: Address, port: int, mac: str
    ) -> None:
        """A VXLAN device without learning, as flannel makes it."""
        source = {"vxlan_local" if local.version == 4 else "vxlan_local6": str(local)}
        self._socket.link(
            "add",
            ifname=name,
            kind="vxlan",
            address=mac,
            vxlan_id=number,
            vxlan_link=self.index(uplink),
            vxlan_port=port,
            vxlan_learning=False,
            mtu=MTU - VXLAN_OVERHEAD[local.version],
            state="up",
            **source,
        )

    def tun(self, name: str, mtu: int) -> None:
        """A device without Ethernet header that stays when no process has it open."""
        with namespaces.entered(self._netns):
            self._socket.link("add", ifname=name, kind="tuntap", mode="tun")
        self._socket.link("set", index=self.index(name), mtu=mtu, state="up")

    def delete(self, name: str) -> None:
        """Deletes a link; gone already is fine."""
        for index in self._socket.link_lookup(ifname=name):
            self._socket.link("del", index=index)
        self._indexes.pop(name, None)

    def pass_by_xdp(self, name: str) -> None:
        """An XDP program that lets every frame through, unless the link has one already."""
        from pyroute2.netlink.exceptions import NetlinkError
        from pyroute2.netlink.rtnl.ifinfmsg import (
            XDP_FLAGS_DRV_MODE,
            XDP_FLAGS_UPDATE_IF_NOEXIST,
        )

        with Program.load(_XDP, "xdp_pass", _PASS) as program:
            attributes = [
                ("IFLA_XDP_FD", program.fd),
                ("IFLA_XDP_FLAGS", XDP_FLAGS_DRV_MODE | XDP_FLAGS_UPDATE_IF_NOEXIST),
            ]
            try:
                self._socket.link("set", index=self.index(name), xdp={"attrs": attributes})
            except NetlinkError as error:
                if error.code != errno.EBUSY:
                    raise

    def compute_checksums(self, name: str) -> None:
        """Packets that leave by this link have their checksums, not a note to compute them."""
        from pyroute2.ethtool.ioctl import IoctlEthtool

        with namespaces.entered(self._netns):
            ethtool = IoctlEthtool(name)
        try:
            ethtool.set_offload_flag("tx-checksumming", False)
        finally:
            ethtool.close()

    def address(self, name: str, interfaces: Iterable[Interface]) -> None:
        """Addresses, usable at once."""
        for interface in interfaces:
            flags = {"flags": _IFA_F_NODAD} if interface.version == 6 else {}
            self._socket.addr(
                "add",
                index=self.index(name),
                family=_family(interface),
                address=str(interface.ip),
                prefixlen=interface.network.prefixlen,
                **flags,
            )

    def route(
        self,
        network: Cidr,
        *,
        via: Address | None = None,
        device: str | None = None,
        onlink: bool = False,
    ) -> None:
        """A route by a gateway, or to what is reached directly by a device. onlink: the gateway is
        taken for reachable by the device although no route says so."""
        route: dict[str, Any] = {"dst": str(network), "family": _family(network)}
        if via is not None:
            route["gateway"] = str(via)
        elif network.version == 4:
            route["scope"] = _RT_SCOPE_LINK  # else it leads to no gateway
        if device is not None:
            route["oif"] = self.index(device)
        if onlink:
            route["flags"] = _RTNH_F_ONLINK
        self._socket.route("add", **route)

    def default_routes(self, gateways: Iterable[Address]) -> None:
        for gateway in gateways:
            everything = ipaddress.ip_network("0.0.0.0/0" if gateway.version == 4 else "::/0")
            self.route(everything, via=gateway)

    def neighbour(self, device: str, address: Address, mac: str) -> None:
        """Who has an address is set once and for all."""
        self._socket.neigh(
            "add",
            dst=str(address),
            family=_family(address),
            lladdr=mac,
            ifindex=self.index(device),
            state=_NUD_PERMANENT,
        )

    def vxlan_peer(self, device: str, mac: str, remote: Address) -> None:
        """Behind which machine a VXLAN device finds a MAC address."""
        self._socket.fdb(
            "add",
            ifindex=self.index(device),
            lladdr=mac,
            dst=str(remote),
            flags=_NTF_SELF,
            state=_NUD_PERMANENT,
        )

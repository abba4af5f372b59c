"""Tables about the node itself. Every method reads first and writes only what differs."""

import errno
import struct
from collections import Counter
from collections.abc import Iterable

from ebpf_lb.datapath.crc32c import shift_columns
from ebpf_lb.datapath.layout import load
from ebpf_lb.datapath.writer.family_maps import FamilyMaps
from ebpf_lb.datapath.writer.filter import VipFilter
from ebpf_lb.datapath.writer.kernel_map import KernelMap
from ebpf_lb.datapath.writer.pools import full
from ebpf_lb.errors import UserError
from ebpf_lb.model.values import Family, Network

NODE_SOURCE_ID = load(Family.IPV4).defines["NODE_SOURCE_ID"]
"""The number of the node's preferred source: what stands for the node itself, and what masquerades
where the interface has no number of its own (bpf/services/decide.h)."""

_INDEX = struct.Struct("=I")
_PRESENT = b"\1"
_FULL = (errno.E2BIG, errno.ENOSPC)  # the latter from longest-prefix tries
_CAPACITIES = {"pod_networks": "networks"}  # where the key is called otherwise


class FullError(UserError):
    """What the node itself needs does not fit into a map."""

    def __init__(self, table: str, entries: int) -> None:
        sentence = full(_CAPACITIES.get(table, table), entries)
        super().__init__(f"{sentence[0].upper()}{sentence[1:]}.")


class NodeTables:
    """Settings, interfaces, SNAT sources, pod networks and constants of one family."""

    def __init__(self, maps: FamilyMaps, stats: Counter[str], vips: VipFilter) -> None:
        self._maps = maps
        self._stats = stats
        self._vips = vips
        flags = maps.layout.enum("config_flag")
        self._masquerade_all = flags["CONFIG_MASQUERADE_ALL"]
        self._pod_networks_known = flags["CONFIG_POD_NETWORKS_KNOWN"]

    def set_config(
        self, node_netns_cookie: int, masquerade_all: bool, reject_per_second: int
    ) -> None:
        """Settings that programs read at every decision.

        node_netns_cookie: of the namespace whose sockets are the node's own. masquerade_all:
        ClusterIP traffic, too, gets an address of the node as its source. reject_per_second: RSTs
        and ICMP errors of the whole node; 0: no limit. Whether the pods' networks are known is not
        one of them: see set_pod_networks.
        """
        known = self._config()["flags"] & self._pod_networks_known
        self._put_config(
            node_netns_cookie=node_netns_cookie,
            flags=known | (self._masquerade_all if masquerade_all else 0),
            reject_per_second=reject_per_second,
        )

    def set_crc32c_shifts(self) -> None:
        """The constant tables for SCTP's checksum."""
        pack = self._maps.layout.struct("crc32c_shift").pack
        for exponent in range(self._maps.crc32c_shifts.max_entries):
            value = pack(column=shift_columns(exponent))
            self._put("crc32c_shifts", self._maps.crc32c_shifts, _INDEX.pack(exponent), value)

    def set_interface(
        self,
        ifindex: int,
        bridge: int = 0,
        source_id: int = 0,
        mac: bytes = bytes(6),
        peer: bool = False,
    ) -> None:
        """bridge: ifindex of the bridge it is a port of, or 0; source_id: see set_snat_source.
        mac: to which frames are addressed that are for this node; zeroes: not known.
        peer: what is sent by it may be handed to its peer, in a pod."""
        flags = self._maps.layout.enum("interface_flag")["INTERFACE_PEER"] if peer else 0
        value = self._maps.layout.struct("interface").pack(
            bridge=bridge, source_id=source_id, flags=flags, mac=mac
        )
        self._put("interfaces", self._maps.interfaces, _INDEX.pack(ifindex), value)

    def delete_interface(self, ifindex: int) -> None:
        if self._maps.interfaces.delete(_INDEX.pack(ifindex)):
            self._stats["interfaces"] += 1

    def interfaces(self) -> set[int]:
        """The ifindexes that have an entry."""
        return {_INDEX.unpack(key)[0] for key, _ in self._maps.interfaces.items()}

    def set_snat_source(self, source_id: int, address: bytes) -> None:
        """Number 1 … 255 stands for this address of the node from now on."""
        if not 0 < source_id < self._maps.snat_sources.max_entries:
            raise ValueError(f"{source_id} is not the number of an SNAT source")
        self._vips.add(address)
        value = self._maps.layout.struct("snat_source").pack(address=address)
        self._put("snat_sources", self._maps.snat_sources, _INDEX.pack(source_id), value)

    def clear_snat_source(self, source_id: int) -> None:
        """The node has this number's address no more: programs take all zeroes for that."""
        table = self._maps.snat_sources
        nothing = bytes(self._maps.layout.struct("snat_source").size)
        self._put("snat_sources", table, _INDEX.pack(source_id), nothing)

    def set_pod_networks(self, networks: Iterable[Network]) -> None:
        """The cluster's pod networks of this family, all of them; none: they are not known."""
        networks = list(networks)
        pack = self._maps.layout.struct("network_key").pack
        wanted = {
            pack(prefix_length=network.prefix_length, address=network.address)
            for network in networks
        }
        held = {key for key, _ in self._maps.pod_networks.items()}
        for key in wanted - held:
            self._put("pod_networks", self._maps.pod_networks, key, _PRESENT)
        for key in held - wanted:
            self._maps.pod_networks.delete(key)
            self._stats["pod_networks"] += 1
        config = self._config()
        flags = config["flags"] & ~self._pod_networks_known
        known = self._pod_networks_known if networks else 0
        self._put_config(**config | {"flags": flags | known})

    def set_service_networks(self, networks: Iterable[Network]) -> tuple[Network, ...]:
        """The cluster's ServiceCIDRs of this family, all of them. Returns those without room."""
        entry = self._maps.layout.struct("service_network")
        whole = self._maps.layout.struct("service_networks").size
        ordered = sorted(set(networks))
        room = whole // entry.size
        value = b"".join(
            entry.pack(prefix=network.address, mask=network.mask) for network in ordered[:room]
        )
        table = self._maps.service_networks
        self._put("service_networks", table, _INDEX.pack(0), value.ljust(whole, b"\0"))
        return tuple(ordered[room:])

    def _config(self) -> dict[str, int]:
        held = self._maps.config.lookup(_INDEX.pack(0))
        layout = self._maps.layout.struct("config")
        fields: dict[str, int] = layout.unpack(held or bytes(layout.size))._asdict()
        return fields

    def _put_config(self, **fields: int) -> None:
        value = self._maps.layout.struct("config").pack(**fields)
        self._put("config", self._maps.config, _INDEX.pack(0), value)

    def _put(self, kind: str, table: KernelMap, key: bytes, value: bytes) -> None:
        if table.lookup(key) == value:
            return
        try:
            table.update(key, value)
        except OSError as error:
            if error.errno not in _FULL:
                raise
            raise FullError(kind, table.max_entries) from error
        self._stats[kind] += 1

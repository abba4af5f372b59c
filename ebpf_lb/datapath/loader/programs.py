"""Which functions of the sources become programs: one line for each that is added.

A unit is what is compiled as one text: its main file, and its own program array, since the kernel
lets one array hold programs of one type only. All maps but that one are shared by all units.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from ebpf_lb.datapath.libbpf import CgroupHook
from ebpf_lb.datapath.settings import Settings
from ebpf_lb.model.values import Family

_SCHED_CLS = 3
_XDP = 6
_CGROUP_SOCK_ADDR = 18

# Without, drivers refuse native mode where frames may be larger than a page. With, generic mode
# leaves TC without the Ethernet header (Linux 6.18: its copy of the packet has no mac_len).
_XDP_HAS_FRAGMENTS = 1 << 5


@dataclass(frozen=True, slots=True)
class Kind:
    """What the kernel must know of a program: numbers of its enums; 0: no attach type, no flags."""

    program_type: int
    attach_type: int = 0
    flags: int = 0


@dataclass(frozen=True, slots=True, eq=False)
class Unit:
    """`main`: its file in the folder of the sources; `macros`: compiled in besides the constants.

    programs: by function. slow_paths: index in its array (enum slow_path in bpf/path/hook.h) ->
    function; `calls_of_ipv6`: likewise, but in the IPv4 programs' array, of the IPv6 programs.
    """

    name: str
    main: str
    programs: Mapping[Family, Mapping[str, Kind]]
    slow_paths: Mapping[int, str]
    calls_of_ipv6: Mapping[int, str] = field(default_factory=dict)
    macros: Mapping[str, int] = field(default_factory=dict)

    def calls(self, family: Family) -> dict[int, tuple[Family, str]]:
        """What a family's program array holds."""
        found = {index: (family, name) for index, name in self.slow_paths.items()}
        if family is Family.IPV4:
            found |= {index: (Family.IPV6, name) for index, name in self.calls_of_ipv6.items()}
        return found


_TC_PROGRAMS = (
    "pod_ingress",
    "pod_egress",
    "uplink_ingress",
    "uplink_egress",
    "loopback_egress",
    "clock",
    "empty",
    "sweep",
    "end_flow",
    "what_if",
)
_TC_SLOW_PATHS = {
    0: "pod_new_flow",
    1: "pod_new_snat",
    2: "pod_first",
    3: "pod_reply",
    4: "pod_second",
    5: "pod_direct",
    8: "uplink_new_flow",
    9: "uplink_new_snat",
    10: "uplink_first",
    11: "uplink_reply",
    12: "uplink_second",
    13: "uplink_direct",
    16: "node_new_flow",
    17: "node_new_snat",
    18: "node_first",
    19: "node_reply",
    22: "node_egress",
    23: "dropped",
    24: "answer_refusal",
    25: "sctp_checksum",
    26: "pod_leaves",
    27: "uplink_leaves",
    28: "pod_in_err",
    29: "pod_out_err",
    30: "uplink_in_err",
    31: "uplink_out_err",
}
_CGROUP_PROGRAMS = {
    "connect4": CgroupHook.INET4_CONNECT,
    "connect6": CgroupHook.INET6_CONNECT,
    "sendmsg4": CgroupHook.UDP4_SENDMSG,
    "sendmsg6": CgroupHook.UDP6_SENDMSG,
    "recvmsg4": CgroupHook.UDP4_RECVMSG,
    "recvmsg6": CgroupHook.UDP6_RECVMSG,
    "getpeername4": CgroupHook.INET4_GETPEERNAME,
    "getpeername6": CgroupHook.INET6_GETPEERNAME,
}
_XDP_SLOW_PATHS = {
    8: "xdp_new_flow",
    9: "xdp_new_snat",
    10: "xdp_first",
    23: "xdp_dropped",
}
_LAYER_3_SLOW_PATHS = {
    8: "l3_new_flow",
    9: "l3_new_snat",
    10: "l3_first",
    11: "l3_reply",
    12: "l3_second",
    13: "l3_direct",
    16: "l3_node_flow",
    17: "l3_node_snat",
    18: "l3_node_first",
    19: "l3_node_reply",
    22: "l3_node",
    23: "l3_dropped",
    24: "l3_refusal",
    25: "l3_sctp",
    27: "l3_leaves",
    30: "l3_in_err",
    31: "l3_out_err",
}


def _stack_programs(family: Family) -> dict[str, Kind]:
    """An IPv6 socket may name an IPv4 address, so IPv4 has both kinds of socket programs."""
    found = dict.fromkeys((*_TC_PROGRAMS, *_TC_SLOW_PATHS.values()), Kind(_SCHED_CLS))
    for name, hook in _CGROUP_PROGRAMS.items():
        if family is Family.IPV4 or name.endswith("6"):
            found[name] = Kind(_CGROUP_SOCK_ADDR, hook)
    return found


def _xdp_programs(flags: int) -> dict[Family, dict[str, Kind]]:
    names = ("xdp_ingress", *_XDP_SLOW_PATHS.values(), "xdp_empty")
    kinds = dict.fromkeys(names, Kind(_XDP, flags=flags))
    return dict.fromkeys(Family, kinds)


STACK = Unit(
    "stack",
    "programs/stack.c",
    {family: _stack_programs(family) for family in Family},
    _TC_SLOW_PATHS,
)
"""What runs on the kernel's socket buffers and sockets: TC and cgroup hooks."""

XDP = Unit(
    "xdp",
    "programs/xdp.c",
    _xdp_programs(_XDP_HAS_FRAGMENTS),
    _XDP_SLOW_PATHS,
    calls_of_ipv6={6: "xdp_ingress"},
    macros={"XDP": 1},
)

LAYER_3 = Unit(
    "l3",
    "programs/layer_3.c",
    dict.fromkeys(
        Family,
        dict.fromkeys(("l3_ingress", "l3_egress", *_LAYER_3_SLOW_PATHS.values()), Kind(_SCHED_CLS)),
    ),
    _LAYER_3_SLOW_PATHS,
    macros={"LINK_HEADER_BYTES": 0},
)
"""For devices without Ethernet header. Few nodes have any, so it is added to a build on demand."""

ADDED_ON_DEMAND = (LAYER_3,)

_XDP_GENERIC = replace(XDP, programs=_xdp_programs(0))


def units(settings: Settings) -> tuple[Unit, ...]:
    """What a build consists of from the start; names of programs differ between units."""
    if not settings.xdp:
        return (STACK,)
    return (STACK, _XDP_GENERIC if settings.xdp_generic else XDP)


UNITS = (STACK, XDP, LAYER_3)
"""All that is compiled; what differs in flags for the kernel only is the same unit here."""


def unit(name: str) -> Unit:
    """The unit of that name."""
    return next(one for one in UNITS if one.name == name)

"""Which functions of the sources become programs: one line for each that is added."""

from dataclasses import dataclass

from ebpf_lb.datapath.libbpf import CgroupHook
from ebpf_lb.model.values import Family

_SCHED_CLS = 3
_CGROUP_SOCK_ADDR = 18

_TC_PROGRAMS = (
    "pod_ingress",
    "pod_egress",
    "uplink_ingress",
    "uplink_egress",
    "clock",
    "empty",
)
# enum slow_path in bpf/tc.h -> the function behind it
_SLOW_PATHS = {
    0: "pod_new_flow",
    1: "pod_new_snat",
    2: "pod_ingress",
    3: "pod_reply",
    4: "uplink_new_flow",
    5: "uplink_new_snat",
    6: "uplink_ingress",
    7: "uplink_reply",
    8: "node_new_flow",
    9: "node_new_snat",
    10: "node_established",
    12: "answer_refusal",
    13: "sctp_checksum",
    16: "pod_in_err",
    17: "pod_out_err",
    18: "uplink_in_err",
    19: "uplink_out_err",
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


@dataclass(frozen=True, slots=True)
class Kind:
    """What the kernel must know of a program; numbers of its enums, 0: no attach type."""

    program_type: int
    attach_type: int = 0


def programs(family: Family) -> dict[str, Kind]:
    """A family's programs by function, in a fixed order.

    An IPv6 socket may name an IPv4 address, so the IPv4 build has both kinds of socket programs.
    """
    found = dict.fromkeys((*_TC_PROGRAMS, *_SLOW_PATHS.values()), Kind(_SCHED_CLS))
    for name, hook in _CGROUP_PROGRAMS.items():
        if family is Family.IPV4 or name.endswith("6"):
            found[name] = Kind(_CGROUP_SOCK_ADDR, hook)
    return found


def slow_paths() -> dict[int, str]:
    """Index in the map `calls` -> function."""
    return dict(_SLOW_PATHS)

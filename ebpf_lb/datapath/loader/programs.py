"""Which functions of the sources become programs: the sources say so themselves, in the main files'
declarations (bpf/programs/declare.h).

A unit is what is compiled as one text: its main file, and its own program array, since the kernel
lets one array hold programs of one type only. All maps but that one are shared by all units.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from ebpf_lb.datapath import layout
from ebpf_lb.datapath.layout import DeclaredProgram, ProgramKind, programs_of
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

    @property
    def at_tc(self) -> bool:
        return self.program_type == _SCHED_CLS


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


def _kind(one: DeclaredProgram, xdp_flags: int) -> Kind:
    match one.kind:
        case ProgramKind.TC:
            return Kind(_SCHED_CLS)
        case ProgramKind.XDP:
            return Kind(_XDP, flags=xdp_flags)
        case ProgramKind.SOCKET:
            return Kind(_CGROUP_SOCK_ADDR, CgroupHook[one.hook])


def _programs(main: str, xdp_flags: int = 0) -> dict[Family, dict[str, Kind]]:
    return {
        family: {one.name: _kind(one, xdp_flags) for one in programs_of(main, family)}
        for family in Family
    }


def _calls(main: str) -> dict[int, str]:
    """Those behind tail calls, of which both families have the same."""
    (found, other) = (
        {one.call: one.name for one in programs_of(main, family) if one.call is not None}
        for family in Family
    )
    if found != other:
        raise ValueError(f"{main}: the families have other programs behind tail calls")
    return found


STACK = Unit(
    "stack",
    "programs/stack.c",
    _programs("programs/stack.c"),
    _calls("programs/stack.c"),
)
"""What runs on the kernel's socket buffers and sockets: TC and cgroup hooks."""

XDP = Unit(
    "xdp",
    "programs/xdp.c",
    _programs("programs/xdp.c", _XDP_HAS_FRAGMENTS),
    _calls("programs/xdp.c"),
    calls_of_ipv6={layout.load(Family.IPV4).enum("slow_path")["CALL_IPV6"]: "xdp_ingress"},
    macros={"XDP": 1},
)

LAYER_3 = Unit(
    "l3",
    "programs/layer_3.c",
    _programs("programs/layer_3.c"),
    _calls("programs/layer_3.c"),
    macros={"LINK_HEADER_BYTES": 0},
)
"""For devices without Ethernet header. Few nodes have any, so it is added to a build on demand."""

ADDED_ON_DEMAND = (LAYER_3,)

_XDP_GENERIC = replace(XDP, programs=_programs(XDP.main))


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

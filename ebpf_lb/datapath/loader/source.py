"""The text that is compiled: all sources spliced into one, and the constants that go with it.

The compiler understands its table syntax in the main file only, so local includes are replaced by
what they name, once each, with `#line` directives: an error then names the real file.
"""

import hashlib
import os
import re
from pathlib import Path

from ebpf_lb.datapath import clock
from ebpf_lb.datapath.layout import sources
from ebpf_lb.datapath.settings import Settings
from ebpf_lb.model.values import Family

MAIN = "ebpf_lb.c"
_INCLUDE = re.compile(r'\s*#\s*include\s+"([\w./-]+)"')
_ONCE = re.compile(r"\s*#\s*pragma\s+once")


def splice(main: Path) -> str:
    """The file with its local includes in place, each at its first mention."""
    seen: set[Path] = set()

    def lines(path: Path) -> list[str]:
        seen.add(path)
        result = [f'#line 1 "{path.name}"']
        for number, line in enumerate(path.read_text().splitlines(), 1):
            include = _INCLUDE.match(line)
            if include:
                named = path.parent / include[1]
                if named not in seen:
                    result += lines(named)
                    result.append(f'#line {number + 1} "{path.name}"')
                else:
                    result.append("")
            else:
                result.append("" if _ONCE.match(line) else line)
        return result

    return "\n".join(lines(main)) + "\n"


def text() -> str:
    return splice(sources() / MAIN)


def flow_sets(settings: Settings) -> int:
    """Sets of four entries, a power of two."""
    return 1 << max(0, (settings.flows - 1).bit_length() - 2)


def capacities(settings: Settings) -> dict[str, int]:
    """The names in maps.h that stand for numbers of entries."""
    return {
        "FRONTENDS_MAX": settings.frontends,
        "SERVICES_MAX": settings.services,
        "BACKENDS_MAX": settings.backends,
        "SLOTS_MAX": settings.slots,
        "FLOW_SETS": flow_sets(settings),
        "AFFINITY_MAX": settings.affinity,
        "FRAGMENTS_MAX": settings.fragments,
        "SOCKETS_MAX": settings.sockets,
        "SOURCE_RANGES_MAX": settings.source_ranges,
        "NETWORKS_MAX": settings.networks,
        "INTERFACES_MAX": settings.interfaces,
        "FILTER_WORDS": 4096,
    }


def constants(settings: Settings) -> dict[str, int]:
    """Everything that is compiled in and the same for both families."""

    def ticks(seconds: float) -> int:
        return max(1, round(seconds * clock.ticks_per_second()))

    return capacities(settings) | {
        "LINK_HEADER_BYTES": 14,
        "TICK_SHIFT": clock.tick_shift(),
        "TIMEOUT_TCP_SYN": ticks(settings.tcp_syn_s),
        "TIMEOUT_TCP_ESTABLISHED": ticks(settings.tcp_established_s),
        "TIMEOUT_CLOSING": ticks(settings.closing_s),
        "TIMEOUT_UDP": ticks(settings.udp_s),
        "TIMEOUT_SCTP": ticks(settings.sctp_s),
    }


def build_id(settings: Settings) -> str:
    """Names a build: the same sources, settings and kernel have the same."""
    digest = hashlib.sha256(text().encode())
    digest.update(repr(sorted(constants(settings).items())).encode())
    digest.update(os.uname().release.encode())
    return digest.hexdigest()[:12]


def defines(
    settings: Settings, family: Family, seed: int, maps: Path, node_maps: Path
) -> list[str]:
    """The compiler's flags for one family. Maps are found by their pins."""
    numbers = constants(settings) | {"FAMILY": int(family)}
    return [
        *(f"-D{name}={number}" for name, number in numbers.items()),
        f"-DFLOW_SEED={seed:#x}ULL",
        f'-DPIN="{maps}"',
        f'-DPIN_CALLS="{maps}"',
        f'-DPIN_NODE="{node_maps}"',
        "-isystem",
        "/usr/include",
        "-isystem",
        f"/usr/include/{os.uname().machine}-linux-gnu",
        "-Wno-unused-function",
        "-Wno-address-of-packed-member",
    ]

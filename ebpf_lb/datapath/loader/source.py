"""The text that is compiled: all sources spliced into one, and the constants that go with it.

The compiler understands its table syntax in the main file only, so local includes are replaced by
what they name, once each, with `#line` directives: an error then names the real file. It also puts
a line of its own before each function, so every body says again where it begins: the verifier's
messages name lines too.
"""

import hashlib
import os
import re
from collections.abc import Mapping
from pathlib import Path

from ebpf_lb.datapath import clock, layout
from ebpf_lb.datapath.layout import sources
from ebpf_lb.datapath.libbpf.btf import kernel_types
from ebpf_lb.datapath.loader.image import FUNCTIONS, KERNEL_CONTEXT, SEED, mark
from ebpf_lb.datapath.loader.programs import ADDED_ON_DEMAND, Unit, units
from ebpf_lb.datapath.settings import Settings
from ebpf_lb.model.values import Family

# A file of each kind is replaced where its package is. Looked at, not loaded: that takes 60 MB.
_COMPILERS = tuple(
    f"{folder}/{library}"
    for folder in ("/usr/lib/{machine}-linux-gnu", "/usr/lib64", "/usr/lib", "/usr/local/lib")
    for library in ("libbcc.so.0", "libclang-cpp.so.14", "libLLVM-14.so.1")
)
# One in so many clients is searched for in vain where another has overflowed: see
# bpf/connections/flow.h.
_OVERFLOW_BITS = 14
# Linux' ipfrag_time: whoever puts fragments together waits no longer.
_FRAGMENT_S = 30
# Those in maps.h that are settings as they stand.
_CAPACITIES = {
    f"{key.upper()}_MAX": key
    for key in (
        "frontends",
        "services",
        "backends",
        "slots",
        "affinity",
        "fragments",
        "sockets",
        "source_ranges",
        "networks",
        "interfaces",
    )
}
# Where the kernel notes what is in a packet's checksum field (sk_buff.ip_summed).
_OF_KERNEL = ("IP_SUMMED_BYTE", "IP_SUMMED_SHIFT")
_SYSTEM_HEADERS = ("/usr/include/linux/version.h",)
_INCLUDE = re.compile(r'\s*#\s*include\s+"([\w./-]+)"')
_ONCE = re.compile(r"\s*#\s*pragma\s+once")


def splice(main: Path, folder: Path) -> str:
    """The file with its local includes in place, each at its first mention. They are named from
    `folder` on, the sources' own."""
    seen: set[Path] = set()

    def lines(path: Path) -> list[str]:
        seen.add(path)
        name = path.relative_to(folder)
        result = [f'#line 1 "{name}"']
        for number, line in enumerate(path.read_text().splitlines(), 1):
            include = _INCLUDE.match(line)
            if include:
                named = folder / include[1]
                if named not in seen:
                    result += lines(named)
                    result.append(f'#line {number + 1} "{name}"')
                else:
                    result.append("")
            elif line == "{":
                result += [f'#line {number} "{name}"', line]
            else:
                result.append("" if _ONCE.match(line) else line)
        return result

    return "\n".join(lines(main)) + "\n"


def text(unit: Unit, folder: Path | None = None) -> str:
    """What is compiled of a unit: the installed sources, or those in `folder`."""
    folder = folder or sources()
    return splice(folder / unit.main, folder)


def flow_sets(settings: Settings) -> int:
    """Sets of four entries, a power of two."""
    return 1 << max(0, (settings.flows - 1).bit_length() - 2)


def capacities(settings: Settings) -> dict[str, int]:
    """The names in maps.h that stand for numbers of entries."""
    return {
        **{name: getattr(settings, key) for name, key in _CAPACITIES.items()},
        "FLOW_SETS_MAX": flow_sets(settings),
        "WAYS_BACK_MAX": flow_sets(settings) if settings.host_routing else 1,
        "FRAGMENT_IDS": 1024,
        "FILTER_WORDS": 32768,
        "KNOWN_ENDS_WORDS": 32768,
        "OVERFLOWS": 1 << _OVERFLOW_BITS,
        "HANDSHAKES": 1 << 17,
    }


def compiled_in() -> dict[str, int]:
    """Constants that are the same on every node. Capacities of maps are among them, since the
    compiler wants some: maps are made by `capacities` when programs are loaded."""
    return {
        **capacities(Settings()),
        "OVERFLOW_BITS": _OVERFLOW_BITS,
        "LINK_HEADER_BYTES": 14,
    }


def filled_in(settings: Settings) -> dict[str, int]:
    """Constants of a node, by its settings and its kernel: they are put into the instructions when
    programs are loaded, so that the verifier knows them and drops what they make superfluous."""

    def ticks(seconds: float) -> int:
        return max(1, round(seconds * clock.ticks_per_second()))

    timeouts = {
        "TIMEOUT_TCP_SYN": ticks(settings.tcp_syn_s),
        "TIMEOUT_TCP_ESTABLISHED": ticks(settings.tcp_established_s),
        "TIMEOUT_CLOSING": ticks(settings.closing_s),
        "TIMEOUT_TIME_WAIT": ticks(settings.time_wait_s),
        "TIMEOUT_RESET": ticks(settings.reset_s),
        "TIMEOUT_UDP_NEW": ticks(settings.udp_new_s),
        "TIMEOUT_UDP": ticks(settings.udp_s),
        "TIMEOUT_SCTP": ticks(settings.sctp_s),
    }
    return {
        **timeouts,
        "TIMEOUT_FRAGMENT": ticks(_FRAGMENT_S),
        "TIMEOUT_LONGEST": max(timeouts.values()),
        "TIMEOUT_SHORTEST": min(timeouts.values()),
        "FLOW_SETS": flow_sets(settings),
        "TICK_SHIFT": clock.tick_shift(),
        "HOST_ROUTING": int(settings.host_routing),
    }


def kernel_facts() -> tuple[dict[str, int], dict[str, int]]:
    """Constants that the running kernel's own description tells, and its numbers of kfuncs. Where
    it lacks the function or the field, the constants are 0, and the programs do without."""
    with kernel_types() as types:
        summed = types and types.field("sk_buff", "ip_summed")
        cast = types and types.function(KERNEL_CONTEXT)
    if not summed or not cast:
        return dict.fromkeys(_OF_KERNEL, 0), {}
    place = dict(zip(_OF_KERNEL, divmod(summed.bit, 8), strict=True))
    return place, {KERNEL_CONTEXT: cast}


def build_id(settings: Settings, folder: Path | None = None) -> str:
    """Names a build: the same sources, programs, settings and kernel have the same."""
    digest = hashlib.sha256()
    for unit in (*units(settings), *ADDED_ON_DEMAND):
        digest.update(_made_of(unit, folder or sources()))
        digest.update(repr(unit).encode())
    for part in (capacities(settings), filled_in(settings)):
        digest.update(repr(sorted(part.items())).encode())
    digest.update(os.uname().release.encode())
    return digest.hexdigest()[:12]


def _made_of(unit: Unit, folder: Path) -> bytes:
    """What the compiler is given, and what its result is compared with; no node's settings."""
    digest = hashlib.sha256(text(unit, folder).encode())
    for header in sorted((folder / "kernel").rglob("*.h")):
        digest.update(header.read_bytes())
    digest.update(repr([sorted(programs) for programs in unit.programs.values()]).encode())
    anywhere = Path("maps")
    for family in Family:
        digest.update(repr(defines(unit, family, None, anywhere, anywhere, anywhere)).encode())
        digest.update(_described(layout.load(family, folder)).encode())
    return digest.digest()


def object_key(unit: Unit, folder: Path | None = None) -> str:
    """Names what is shipped of a unit, for this kind of machine: whatever compiler made it."""
    digest = hashlib.sha256(_made_of(unit, folder or sources()))
    return f"{os.uname().machine}-{digest.hexdigest()[:24]}"


def cache_key(unit: Unit, folder: Path | None = None) -> str:
    """Names what this machine's compiler makes of a unit: its version counts too, and that of the
    system's headers."""
    digest = hashlib.sha256(_made_of(unit, folder or sources()))
    for file in (*_COMPILERS, *_SYSTEM_HEADERS):
        real = Path(file.format(machine=os.uname().machine)).resolve()
        if real.exists():
            facts = real.stat()
            digest.update(f"{real} {facts.st_size} {facts.st_mtime_ns}\n".encode())
    return f"{os.uname().machine}-{digest.hexdigest()[:24]}"


def _described(described: layout.Layout) -> str:
    parts = [repr((one.name, one.fields)) for one in described.structs.values()]
    for spec in described.maps.values():
        key, value = (spec.key.name, spec.key_size), (spec.value.name, spec.value_size)
        parts.append(repr((spec.name, spec.type, key, value, spec.max_entries, spec.flags)))
    return "\n".join(parts)


def names_filled_in() -> tuple[str, ...]:
    """Constants that stand in the instructions as marks (image.py), each by its place here."""
    return (SEED, *_OF_KERNEL, *sorted(filled_in(Settings())))


def defines(
    unit: Unit,
    family: Family,
    numbers: Mapping[str, int] | None,
    maps: Path,
    node_maps: Path,
    calls: Path,
) -> list[str]:
    """The compiler's flags for a unit of one family. Maps are found by their pins.

    numbers: of the constants that a node fills in; None: marks, to be replaced at loading. Each is
    loaded by an instruction written out, so that the optimiser neither splits it nor computes with
    it.
    """
    names = names_filled_in()
    if numbers is None:
        numbers = {name: mark(index) for index, name in enumerate(names)}
    fixed = compiled_in() | {"FAMILY": int(family), **unit.macros}
    fixed["KERNEL_CONTEXT"] = FUNCTIONS[KERNEL_CONTEXT]
    return [
        *(f"-D{name}={number}" for name, number in fixed.items()),
        *(f"-D{name}={_loading(numbers[name], name != SEED)}" for name in names),
        f'-DPIN="{maps}"',
        f'-DPIN_CALLS="{calls}"',
        f'-DPIN_NODE="{node_maps}"',
        "-isystem",
        "/usr/include",
        "-isystem",
        f"/usr/include/{os.uname().machine}-linux-gnu",
        "-Wno-unused-function",
        "-Wno-address-of-packed-member",
    ]


def _loading(number: int, small: bool) -> str:
    """`small`: it will have 31 bits, which spares the code that cuts it."""
    assumed = " __builtin_assume(number_ <= 0x7fffffff);" if small else ""
    return f'({{ __u64 number_; asm("%0 = {number:#x} ll" : "=r"(number_));{assumed} number_; }})'

"""The text that is compiled: all sources spliced into one, and the constants that go with it.

The compiler understands its table syntax in the main file only, so local includes are replaced by
what they name, once each, with `#line` directives: an error then names the real file. It also puts
a line of its own before each function, so every body says again where it begins: the verifier's
messages name lines too.
"""

import hashlib
import os
import re
from dataclasses import replace
from pathlib import Path

from ebpf_lb.datapath import clock, layout
from ebpf_lb.datapath.layout import sources
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
_DEFAULTS = Settings()
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
        "FLOW_SETS": flow_sets(settings),
        "FRAGMENT_IDS": 1024,
        "FILTER_WORDS": 4096,
        "OVERFLOWS": 1 << _OVERFLOW_BITS,
    }


def constants(settings: Settings) -> dict[str, int]:
    """Everything that is compiled in and the same for both families."""

    def ticks(seconds: float) -> int:
        return max(1, round(seconds * clock.ticks_per_second()))

    timeouts = {
        "TIMEOUT_TCP_SYN": ticks(settings.tcp_syn_s),
        "TIMEOUT_TCP_ESTABLISHED": ticks(settings.tcp_established_s),
        "TIMEOUT_CLOSING": ticks(settings.closing_s),
        "TIMEOUT_UDP": ticks(settings.udp_s),
        "TIMEOUT_SCTP": ticks(settings.sctp_s),
    }
    return {
        **capacities(settings),
        **timeouts,
        "TIMEOUT_LONGEST": max(timeouts.values()),
        "OVERFLOW_BITS": _OVERFLOW_BITS,
        "LINK_HEADER_BYTES": 14,
        "TICK_SHIFT": clock.tick_shift(),
    }


def build_id(settings: Settings, folder: Path | None = None) -> str:
    """Names a build: the same sources, programs, settings and kernel have the same."""
    digest = hashlib.sha256()
    for unit in (*units(settings), *ADDED_ON_DEMAND):
        digest.update(_made_of(unit, settings, folder or sources()))
    return digest.hexdigest()[:12]


def _made_of(unit: Unit, settings: Settings, folder: Path) -> bytes:
    digest = hashlib.sha256(text(unit, folder).encode())
    for header in sorted((folder / "kernel").rglob("*.h")):
        digest.update(header.read_bytes())
    for part in (sorted(constants(settings).items()), unit, os.uname().release):
        digest.update(repr(part).encode())
    return digest.digest()


def cache_key(unit: Unit, settings: Settings, folder: Path | None = None) -> str:
    """Names what the compiler makes of a unit: its own version counts too, that of the system's
    headers, its flags, and the layouts that its result was compared with. Capacities that stand
    nowhere but in the maps' declarations do not: they change no instruction."""
    folder = folder or sources()
    settings = _compiled(settings, text(unit, folder))
    digest = hashlib.sha256(_made_of(unit, settings, folder))
    anywhere = Path("maps")
    for family in Family:
        flags = defines(unit, settings, family, 0, anywhere, anywhere, anywhere)
        digest.update(repr(flags).encode())
        digest.update(_described(layout.load(family, folder)).encode())
    for file in (*_COMPILERS, *_SYSTEM_HEADERS):
        real = Path(file.format(machine=os.uname().machine)).resolve()
        if real.exists():
            facts = real.stat()
            digest.update(f"{real} {facts.st_size} {facts.st_mtime_ns}\n".encode())
    return f"{os.uname().machine}-{digest.hexdigest()[:24]}"


def _compiled(settings: Settings, spliced: str) -> Settings:
    """The settings with those capacities as by default that the code does not ask for."""
    code = "\n".join(line for line in spliced.splitlines() if not line.startswith("BPF_F_TABLE"))
    plain = {
        key: getattr(_DEFAULTS, key)
        for name, key in _CAPACITIES.items()
        if not re.search(rf"\b{name}\b", code)
    }
    return replace(settings, **plain)


def _described(described: layout.Layout) -> str:
    parts = [repr((one.name, one.fields)) for one in described.structs.values()]
    for spec in described.maps.values():
        key, value = (spec.key.name, spec.key_size), (spec.value.name, spec.value_size)
        parts.append(repr((spec.name, spec.type, key, value, spec.max_entries, spec.flags)))
    return "\n".join(parts)


def defines(
    unit: Unit,
    settings: Settings,
    family: Family,
    seed: int,
    maps: Path,
    node_maps: Path,
    calls: Path,
) -> list[str]:
    """The compiler's flags for a unit of one family. Maps are found by their pins.

    The seed is loaded by an instruction written out, so that the optimiser neither splits it nor
    computes with it: another one can be filled in later.
    """
    numbers = constants(settings) | {"FAMILY": int(family), **unit.macros}
    load_seed = f'({{ __u64 seed_; asm("%0 = {seed:#x} ll" : "=r"(seed_)); seed_; }})'
    return [
        *(f"-D{name}={number}" for name, number in numbers.items()),
        f"-DFLOW_SEED={load_seed}",
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

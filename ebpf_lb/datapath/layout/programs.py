"""Which programs the sources have, as their main files declare them (bpf/programs/declare.h):

TC_PROGRAM(pod_ingress)                             at a hook, by the loader or the agent
TC_CALL(CALLS_OF_POD + CALL_NEW_FLOW, pod_new_flow) behind a tail call, by this number
SOCKET_PROGRAM(INET4_CONNECT, connect4)             at a hook of a cgroup
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from pathlib import Path

from ebpf_lb.datapath.layout.headers import HeaderError, evaluate, lines_of
from ebpf_lb.model.values import Family


class ProgramKind(Enum):
    TC = "TC"
    XDP = "XDP"
    SOCKET = "SOCKET"


@dataclass(frozen=True, slots=True)
class DeclaredProgram:
    """`call`: its number in the array of tail calls; None: it is at a hook. `hook`: of a socket's
    program, as the kernel calls it."""

    name: str
    kind: ProgramKind
    call: int | None = None
    hook: str = ""


_DECLARED = re.compile(r"(TC|XDP)_PROGRAM\((\w+)\)|(TC|XDP)_CALL\(([\w +]+), (\w+)\)|"
                       r"SOCKET_PROGRAM\((\w+), (\w+)\)")  # fmt: skip
_ATTEMPT = re.compile(r"(?:TC|XDP|SOCKET)_(?:PROGRAM|CALL)\(")


def declared_programs(
    main: Path, family: Family, names: Mapping[str, int]
) -> tuple[DeclaredProgram, ...]:
    """What a main file declares for a family. `names`: what numbers are written with. HeaderError:
    a declaration cannot be understood, or two have one name or number."""
    found: list[DeclaredProgram] = []
    for line in lines_of(main.read_text(), f"{main.parent.name}/{main.name}", family):
        if not _ATTEMPT.match(line.code):
            continue
        match = _DECLARED.fullmatch(line.code)
        if match is None:
            raise HeaderError(line.place, f"not a declaration of a program: {line.code}")
        if match[1]:
            one = DeclaredProgram(match[2], ProgramKind(match[1]))
        elif match[3]:
            number = evaluate(match[4], names)
            if number is None:
                raise HeaderError(line.place, f"no number: {match[4]}")
            one = DeclaredProgram(match[5], ProgramKind(match[3]), number)
        else:
            one = DeclaredProgram(match[7], ProgramKind.SOCKET, hook=match[6])
        for other in found:
            if other.name == one.name or (one.call is not None and other.call == one.call):
                raise HeaderError(
                    line.place, f"{one.name} has the name or the number of {other.name}"
                )
        found.append(one)
    return tuple(found)

"""What the compiler made, freed of the maps it was made with, and without any node's constants.

An instruction that names a map carries a descriptor of the compiler's process. A constant that
each node fills in (the flow table's seed, sizes, time-outs) is loaded by an instruction of its
own, out of the optimiser's reach (see `source.defines`), whose 64-bit number is a mark. A call of
one of the kernel's own functions (kfuncs), which have other numbers in each kernel, is one of a
helper that there is not. All are noted by place, and filled in at loading.
"""

import base64
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

_INSTRUCTION = struct.Struct("<BBhI")  # operation, registers, offset, number
_BYTES = _INSTRUCTION.size
_LOAD_64 = 0x18  # of two instructions, each with half of the number
_CALL = 0x85
_OF_KERNEL = 2 << 4  # the source register (BPF_PSEUDO_KFUNC_CALL), where the number is a kfunc's
_CLEAR_RESULT = 0xB7  # r0 = 0
_MAP_DESCRIPTOR = 1  # the source register, where the number names a map
_NUMBER_AT = 4
_HALF = 0xFFFFFFFF

# The upper half of a mark, a number that no program uses; the lower one says which constant.
_MARK = 0x6C62B1E5
SEED = "FLOW_SEED"
"""The constant with the seed of the flow table's hash."""

_FIRST_FUNCTION = 0x6C62B200
KERNEL_CONTEXT = "bpf_cast_to_kern_ctx"
FUNCTIONS = {KERNEL_CONTEXT: _FIRST_FUNCTION}
"""Which helper stands for each kfunc. A kernel may lack it: see `source.kernel_facts`."""


def mark(index: int) -> int:
    """What stands for the constant of this number until it is filled in."""
    return _MARK << 32 | index


@dataclass(frozen=True, slots=True)
class ProgramImage:
    """Instructions, and those to fill in, by index: a map's name, a constant's, a kfunc's."""

    code: bytes
    maps: Mapping[int, str]
    constants: Mapping[int, str]
    functions: Mapping[int, str] = field(default_factory=dict)

    def fill_in(
        self,
        descriptors: Mapping[str, int],
        constants: Mapping[str, int],
        functions: Mapping[str, int] | None = None,
    ) -> bytes:
        """Instructions for the kernel. functions: its numbers of kfuncs; a call of one that it
        lacks is none. KeyError: a map without a descriptor, or a constant."""
        code = bytearray(self.code)
        for index, name in self.maps.items():
            _put(code, index, descriptors[name], 0)
        for index, name in self.constants.items():
            _put(code, index, constants[name] & _HALF, constants[name] >> 32)
        for index, name in self.functions.items():
            number = (functions or {}).get(name)
            call = (_CLEAR_RESULT, 0, 0, 0) if number is None else (_CALL, _OF_KERNEL, 0, number)
            _INSTRUCTION.pack_into(code, index * _BYTES, *call)
        return bytes(code)


# One family's programs, by function.
Image = Mapping[str, ProgramImage]


def _put(code: bytearray, index: int, low: int, high: int) -> None:
    for at, number in ((index, low), (index + 1, high)):
        struct.pack_into("<I", code, at * _BYTES + _NUMBER_AT, number)


def take_apart(
    code: bytes, descriptors: Mapping[int, str], constants: Sequence[str]
) -> ProgramImage:
    """The image of a compiled program, whose maps are known by descriptor and whose marks stand for
    these constants.

    ValueError: a mark stands where nothing can be filled in. KeyError: an unknown map.
    """
    blank = bytearray(code)
    maps: dict[int, str] = {}
    found: dict[int, str] = {}
    functions: dict[int, str] = {}
    names = {number: name for name, number in FUNCTIONS.items()}
    instructions = list(_INSTRUCTION.iter_unpack(code))
    index = 0
    while index < len(instructions):
        operation, registers, _, number = instructions[index]
        width = 2 if operation == _LOAD_64 else 1
        numbers = tuple(part[3] for part in instructions[index : index + width])
        if width == 2 and registers >> 4 == _MAP_DESCRIPTOR:
            maps[index] = descriptors[number]
            _put(blank, index, 0, 0)
        elif width == 2 and numbers[1] == _MARK and numbers[0] < len(constants):
            found[index] = constants[numbers[0]]
            _put(blank, index, 0, 0)
        elif (operation, registers >> 4) == (_CALL, 0) and number in names:
            functions[index] = names[number]
        elif _MARK in numbers:
            raise ValueError(f"instruction {index} holds a part of a constant's mark")
        index += width
    return ProgramImage(bytes(blank), maps, found, functions)


def to_plain(image: Image) -> dict[str, Any]:
    """Lists, dicts and texts, for JSON."""
    return {
        name: {
            "code": base64.b64encode(one.code).decode(),
            "maps": list(one.maps.items()),
            "constants": list(one.constants.items()),
            "functions": list(one.functions.items()),
        }
        for name, one in image.items()
    }


def from_plain(plain: dict[str, Any]) -> Image:
    """The image again; KeyError, TypeError or ValueError if it is none."""
    return {
        name: ProgramImage(
            base64.b64decode(one["code"], validate=True),
            dict(one["maps"]),
            dict(one["constants"]),
            dict(one["functions"]),
        )
        for name, one in plain.items()
    }

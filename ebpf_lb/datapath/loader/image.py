"""What the compiler made, freed of the maps and the seed it was made with.

An instruction that names a map carries a descriptor of the compiler's process, and the flow
table's seed stands in instructions of its own, out of the optimiser's reach (see `source.defines`).
Both are noted by place, and filled in for each node at loading.
"""

import base64
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

_INSTRUCTION = struct.Struct("<BBhI")  # operation, registers, offset, number
_BYTES = _INSTRUCTION.size
_LOAD_64 = 0x18  # of two instructions, each with half of the number
_MAP_DESCRIPTOR = 1  # the source register, where the number names a map
_NUMBER_AT = 4
_HALF = 0xFFFFFFFF

# What is compiled in instead of a seed: no half of it is a likely number.
PLACEHOLDER_SEED = 0x6C62B1E5_D9437A8F


@dataclass(frozen=True, slots=True)
class ProgramImage:
    """Instructions, and the indexes of those to fill in: map's name by index; the seed's."""

    code: bytes
    maps: Mapping[int, str]
    seeds: tuple[int, ...]

    def fill_in(self, descriptors: Mapping[str, int], seed: int) -> bytes:
        """Instructions for the kernel. KeyError: a map without a descriptor."""
        code = bytearray(self.code)
        for index, name in self.maps.items():
            _put(code, index, descriptors[name], 0)
        for index in self.seeds:
            _put(code, index, seed & _HALF, seed >> 32)
        return bytes(code)


# One family's programs, by function.
Image = Mapping[str, ProgramImage]


def _put(code: bytearray, index: int, low: int, high: int) -> None:
    for at, number in ((index, low), (index + 1, high)):
        struct.pack_into("<I", code, at * _BYTES + _NUMBER_AT, number)


def take_apart(code: bytes, descriptors: Mapping[int, str], seed: int) -> ProgramImage:
    """The image of a compiled program, whose maps are known by descriptor and whose seed was this.

    ValueError: a part of the seed stands where it cannot be filled in. KeyError: an unknown map.
    """
    halves = (seed & _HALF, seed >> 32)
    blank = bytearray(code)
    maps: dict[int, str] = {}
    seeds: list[int] = []
    instructions = list(_INSTRUCTION.iter_unpack(code))
    index = 0
    while index < len(instructions):
        operation, registers, _, number = instructions[index]
        width = 2 if operation == _LOAD_64 else 1
        numbers = tuple(part[3] for part in instructions[index : index + width])
        if width == 2 and registers >> 4 == _MAP_DESCRIPTOR:
            maps[index] = descriptors[number]
            _put(blank, index, 0, 0)
        elif numbers == halves:
            seeds.append(index)
            _put(blank, index, 0, 0)
        elif any(half in numbers for half in halves):
            raise ValueError(f"instruction {index} holds a part of the seed")
        index += width
    return ProgramImage(bytes(blank), maps, tuple(seeds))


def to_plain(image: Image) -> dict[str, Any]:
    """Lists, dicts and texts, for JSON."""
    return {
        name: {
            "code": base64.b64encode(one.code).decode(),
            "maps": list(one.maps.items()),
            "seeds": list(one.seeds),
        }
        for name, one in image.items()
    }


def from_plain(plain: dict[str, Any]) -> Image:
    """The image again; KeyError, TypeError or ValueError if it is none."""
    return {
        name: ProgramImage(
            base64.b64decode(one["code"], validate=True), dict(one["maps"]), tuple(one["seeds"])
        )
        for name, one in plain.items()
    }

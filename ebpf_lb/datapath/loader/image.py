"""What the compiler made, freed of the maps and the seed it was made with.

An instruction that names a map carries a descriptor of the compiler's process, and the flow
table's seed stands in instructions of its own: both are noted by place and filled in for each node
at loading. Only a seed that stands there whole can be: an optimiser that split it, or computed with
it, has made code for that one seed.
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

# Compiled in for images that are to serve any seed: no half of it is a likely number.
PLACEHOLDER_SEED = 0x6C62B1E5_D9437A8F
# Whoever looks into this map has hashed with the seed.
_SEEDED_MAP = "flows"


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


@dataclass(frozen=True, slots=True)
class Image:
    """One family's programs. `portable`: for any seed, not only the one it was compiled with."""

    programs: Mapping[str, ProgramImage]
    portable: bool


def _put(code: bytearray, index: int, low: int, high: int) -> None:
    for at, number in ((index, low), (index + 1, high)):
        struct.pack_into("<I", code, at * _BYTES + _NUMBER_AT, number)


def take_apart(codes: Mapping[str, bytes], descriptors: Mapping[int, str], seed: int) -> Image:
    """The image of compiled programs, whose maps are known by descriptor and whose seed was this.

    KeyError: an instruction names an unknown map.
    """
    taken = {name: _take_apart(code, descriptors, seed) for name, code in codes.items()}
    return Image(
        {name: program for name, (program, _) in taken.items()},
        all(whole for _, whole in taken.values()),
    )


def _take_apart(
    code: bytes, descriptors: Mapping[int, str], seed: int
) -> tuple[ProgramImage, bool]:
    halves = (seed & _HALF, seed >> 32)
    filled = bytearray(code)
    maps: dict[int, str] = {}
    seeds: list[int] = []
    split = False
    instructions = list(_INSTRUCTION.iter_unpack(code))
    index = 0
    while index < len(instructions):
        operation, registers, _, number = instructions[index]
        if operation != _LOAD_64:
            split = split or number in halves
            index += 1
            continue
        high = instructions[index + 1][3]
        if registers >> 4 == _MAP_DESCRIPTOR:
            maps[index] = descriptors[number]
            _put(filled, index, 0, 0)
        elif (number, high) == halves:
            seeds.append(index)
        else:
            split = split or number in halves or high in halves
        index += 2
    if split or (not seeds and _SEEDED_MAP in maps.values()):
        return ProgramImage(bytes(filled), maps, ()), False
    return ProgramImage(bytes(filled), maps, tuple(seeds)), True


def to_plain(image: Image) -> dict[str, Any]:
    """Lists, dicts and texts, for JSON."""
    return {
        "portable": image.portable,
        "programs": {
            name: {
                "code": base64.b64encode(one.code).decode(),
                "maps": list(one.maps.items()),
                "seeds": list(one.seeds),
            }
            for name, one in image.programs.items()
        },
    }


def from_plain(plain: dict[str, Any]) -> Image:
    """The image again; KeyError, TypeError or ValueError if it is none."""
    return Image(
        {
            name: ProgramImage(
                base64.b64decode(one["code"], validate=True),
                dict(one["maps"]),
                tuple(one["seeds"]),
            )
            for name, one in plain["programs"].items()
        },
        plain["portable"],
    )

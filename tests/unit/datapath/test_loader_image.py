"""Compiled code freed of its maps and its constants, on instructions put together by hand."""

import json
import struct

import pytest

from ebpf_lb.datapath.loader.image import (
    FUNCTIONS,
    KERNEL_CONTEXT,
    ProgramImage,
    from_plain,
    mark,
    take_apart,
    to_plain,
)

NAMES = ("FLOW_SEED", "FLOW_SETS")
SEED, SETS = mark(0), mark(1)
MARK = SEED >> 32
EXIT = bytes.fromhex("9500000000000000")


def instruction(operation: int, registers: int = 0, number: int = 0) -> bytes:
    return struct.pack("<BBhI", operation, registers, 0, number)


def load_64(number: int, source: int = 0) -> bytes:
    """r1 = number, of 64 bits; with source 1 the number is a map's descriptor."""
    low, high = number & 0xFFFFFFFF, number >> 32
    return instruction(0x18, source << 4 | 1, low) + instruction(0, 0, high)


def apart(code: bytes) -> ProgramImage:
    return take_apart(code, {7: "flows", 9: "calls"}, NAMES)


def test_maps_and_constants_are_filled_in_where_they_stood() -> None:
    code = load_64(9, 1) + load_64(SEED) + instruction(0xB7, 0, 7) + load_64(7, 1) + load_64(SETS)
    seed = 0xFEDCBA9876543210
    assert apart(code + EXIT).fill_in(
        {"flows": 70, "calls": 90}, {"FLOW_SEED": seed, "FLOW_SETS": 256, "OTHER": 1}
    ) == (
        # the plain number 7 is not one of a map's descriptors
        load_64(90, 1)
        + load_64(seed)
        + instruction(0xB7, 0, 7)
        + load_64(70, 1)
        + load_64(256)
        + EXIT
    )


def test_the_image_does_not_depend_on_what_it_was_compiled_with() -> None:
    one = take_apart(load_64(9, 1) + load_64(mark(0)) + EXIT, {9: "calls"}, ["A", "B"])
    other = take_apart(load_64(5, 1) + load_64(mark(1)) + EXIT, {5: "calls"}, ["B", "A"])
    assert one == other


@pytest.mark.parametrize(
    "code",
    [
        instruction(0xB7, 1, MARK),  # r1 = the mark
        instruction(0xA7, 1, MARK),
        load_64(MARK),
        load_64(mark(2)),  # of no constant
        load_64(SEED) + instruction(0xB7, 1, MARK),  # whole once, split once
    ],
)
def test_a_part_of_a_mark_elsewhere_is_refused(code: bytes) -> None:
    with pytest.raises(ValueError, match="holds a part of a constant's mark"):
        apart(code + EXIT)


def test_a_map_that_nobody_knows_is_refused() -> None:
    with pytest.raises(KeyError):
        apart(load_64(8, 1) + EXIT)


STAND_IN = instruction(0x85, 0, FUNCTIONS[KERNEL_CONTEXT])


def test_a_kfunc_is_called_by_the_number_that_this_kernel_gives_it() -> None:
    helper = instruction(0x85, 0, 12)
    image = apart(helper + STAND_IN + EXIT)
    assert image.fill_in({}, {}, {KERNEL_CONTEXT: 4711}) == (
        helper + instruction(0x85, 2 << 4, 4711) + EXIT
    )


def test_a_kfunc_that_the_kernel_lacks_gives_zero() -> None:
    assert apart(STAND_IN + EXIT).fill_in({}, {}) == instruction(0xB7, 0, 0) + EXIT


def test_through_json_and_back() -> None:
    image = {"one": apart(load_64(7, 1) + load_64(SEED) + STAND_IN + EXIT), "other": apart(EXIT)}
    assert from_plain(json.loads(json.dumps(to_plain(image)))) == image

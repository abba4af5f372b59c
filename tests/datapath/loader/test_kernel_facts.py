"""What the running kernel says of itself, against what programs see."""

import os
from pathlib import Path

from ebpf_lb.datapath.libbpf.btf import kernel_types
from ebpf_lb.datapath.loader import source


def test_fields_are_found_also_in_structures_without_a_name() -> None:
    with kernel_types() as types:
        assert types is not None
        assert types.field("sk_buff", "no_such_field") is None
        assert types.field("no_such_structure", "len") is None
        assert types.function("no_such_function") is None
        length, next_one = types.field("sk_buff", "len"), types.field("sk_buff", "next")
        summed = types.field("sk_buff", "ip_summed")
        assert length is not None and next_one is not None and summed is not None
        assert (length.bit % 32, length.width) == (0, 0)
        assert next_one.bit == 0  # in a union in it
        assert summed.width == 2


def test_the_kernel_is_asked_where_it_can_be() -> None:
    """Linux 6.2 and later can."""
    known = b"bpf_cast_to_kern_ctx" in Path("/sys/kernel/btf/vmlinux").read_bytes()
    facts, functions = source.kernel_facts()
    assert bool(functions) == bool(facts["IP_SUMMED_BYTE"]) == known
    major, minor = (int(part) for part in os.uname().release.split(".")[:2])
    assert known == ((major, minor) >= (6, 2))

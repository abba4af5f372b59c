"""What cannot be compiled or loaded is shown where it was written."""

import re
from pathlib import Path

import pytest

from ebpf_lb.datapath.loader import LoaderError, ensure_loaded
from tests.capabilities import DATAPATH, needs
from tests.datapath.loader.small import SETTINGS, state

pytestmark = needs(*DATAPATH)


def broken(sources: Path, file: str, old: str, new: str) -> int:
    """Replaces a text that stands there once; returns its line."""
    path = sources / file
    before, after = path.read_text().split(old)
    path.write_text(before + new + after)
    return before.count("\n") + 1


def refused(root: Path, sources: Path) -> str:
    """What the loader says of sources that do not work; all the rest is as it was."""
    before = state(root)
    with pytest.raises(LoaderError) as caught:
        ensure_loaded(root, SETTINGS, sources)
    assert state(root) == before
    assert [path.name for path in root.iterdir() if path.name not in ("builds", "current")] == []
    return str(caught.value)


def test_a_syntax_error_is_shown_with_file_and_line(root: Path, sources: Path) -> None:
    ensure_loaded(root, SETTINGS, sources)
    line = broken(sources, "ground/hash.h", "x *= 0xff51afd7ed558ccdULL;", "x *= no_such_thing;")
    message = refused(root, sources)
    assert message.startswith("the ipv4 programs cannot be compiled: ")
    assert f"ground/hash.h:{line}:" in message and "no_such_thing" in message
    assert "Traceback" not in message


def test_a_refusal_of_the_verifier_is_shown_with_the_source_line(root: Path, sources: Path) -> None:
    ensure_loaded(root, SETTINGS, sources)
    broken(sources, "programs/stack.c", "return set ? hash >> 40 : 0;", "return first_word(set);")
    line = broken(
        sources,
        "ground/hash.h",
        "/* The finisher of MurmurHash3",
        "INLINE __u64 first_word(void *set)\n{\n\treturn *(__u64 *)set;\n}\n\n/* The finisher",
    )
    message = refused(root, sources)
    head, *log = message.splitlines()
    assert re.fullmatch(
        r"the kernel refuses the ipv[46] program pod_ingress: Permission denied at "
        rf"ground/hash\.h:{line + 2}: return \*\(__u64 \*\)set;",
        head,
    )
    assert len(log) <= 20 and any("map_value_or_null" in row for row in log)


def test_layouts_that_the_compiler_sees_otherwise_are_noticed(root: Path, sources: Path) -> None:
    ensure_loaded(root, SETTINGS, sources)
    # our reader does not look into the main file, so it knows nothing of this
    broken(
        sources,
        "programs/stack.c",
        '#include "ground/layout.h"',
        '#define bridge other\n#include "ground/layout.h"',
    )
    message = refused(root, sources)
    assert "interfaces's value: field bridge lies elsewhere for the compiler" in message


def test_sizes_that_the_compiler_sees_otherwise_are_noticed(root: Path, sources: Path) -> None:
    ensure_loaded(root, SETTINGS, sources)
    broken(
        sources,
        "programs/stack.c",
        '#include "ground/maps.h"',
        '#define HASH_ON_DEMAND 0\n#include "ground/maps.h"',
    )
    broken(sources, "ground/maps.h", "#define HASH_ON_DEMAND 1 ", "#ifndef HASH_ON_DEMAND\n#define HASH_ON_DEMAND 1\n#endif ")  # fmt: skip # noqa: E501
    message = refused(root, sources)
    assert "map frontends has 131072 entries and flags 0x0 for the compiler" in message

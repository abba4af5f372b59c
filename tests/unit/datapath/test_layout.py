"""The parser's strictness, C's alignment, and golden bytes written by hand."""

from pathlib import Path
from typing import Any

import pytest

from ebpf_lb.datapath.layout import Layout, Scope, StructLayout, Verdict, build, load
from ebpf_lb.datapath.layout.headers import (
    HeaderError,
    evaluate,
    parse_constants,
    parse_header,
)
from ebpf_lb.model.values import Family


def layout_of(text: str, family: Family = Family.IPV4) -> Layout:
    return build([parse_header(text, "bpf/x.h", family)], family)


def error_of(text: str) -> str:
    with pytest.raises(HeaderError) as caught:
        layout_of(text)
    return str(caught.value)


def fields(struct: StructLayout) -> list[tuple[str, int, int]]:
    return [(field.name, field.offset, field.size) for field in struct.fields]


def test_alignment_as_the_compiler_has_it() -> None:
    layout = layout_of("struct a {\n__u8 x;\n__u8 pad[3];\naddr y;\n__be16 z;\nu16 w[1];\n};")
    assert fields(layout.struct("a")) == [
        ("x", 0, 1),
        ("pad", 1, 3),
        ("y", 4, 4),
        ("z", 8, 2),
        ("w", 10, 2),
    ]
    assert layout.struct("a").size == 12


@pytest.mark.parametrize(
    ("text", "error"),
    [
        (
            "struct a {\n__u8 x;\n__u32 y;\n};",
            "bpf/x.h:3: struct a: y stands at 1, and the compiler would put 3",
        ),
        (
            "struct a {\n__u32 y;\n__u8 x;\n};",
            "bpf/x.h:1: struct a: the compiler would put 3 bytes of padding at its end",
        ),
        ("struct a {\nint x;\n};", "bpf/x.h:2: x: unknown type int"),
        ("struct a {\n__u8 x : 3;\n};", "bpf/x.h:2: struct a: not a field"),
        ("struct a {\n__u8 x;\n__u8 x;\n};", "bpf/x.h:3: struct a: two fields named x"),
        ("struct a {\n__u8 x[N];\n};", "bpf/x.h:2: N is neither a number nor defined above"),
        ("struct a {\nstruct b x;\n};", "bpf/x.h:2: x: struct b is not declared above"),
        ("struct a {\n__u8 x;\n", "bpf/x.h:1: struct a does not end"),
        ("struct a { __u8 x; };", "bpf/x.h:1: write `struct name {` on a line"),
        ("enum e {\nA,\n};", "bpf/x.h:2: enum e: not `NAME = number,`"),
        ("enum e {\nA = 1,\nB = 1,\n};", "bpf/x.h:3: enum e: B = 1 stands there twice"),
        ("#if FAMILY == 4\n", "bpf/x.h:2: #if without #endif"),
        ('BPF_F_TABLE("hash:" PIN "/a", u32, u32, b, 1, 0);', "bpf/x.h:1: b is pinned as a"),
        (
            'BPF_F_TABLE("hash:" PIN "/a", u32, struct q, a, 1, 0);',
            "bpf/x.h:1: map a: unknown type struct q",
        ),
        (
            'BPF_F_TABLE("hash:" HERE "/a", u32, u32, a, 1, 0);',
            "bpf/x.h:1: map a: unknown folder HERE",
        ),
        (
            'BPF_F_TABLE("hash:" PIN "/a", u32, u32, a, 1, FLAG);',
            "bpf/x.h:1: map a: FLAG is not defined",
        ),
        ("BPF_HASH(a, u32, u32);", "bpf/x.h:1: not a map declaration of the known form"),
    ],
)
def test_errors_name_file_and_line(text: str, error: str) -> None:
    assert error_of(text).startswith(error)


def test_a_maps_declaration() -> None:
    layout = layout_of(
        "#define ON_DEMAND 0x1 /* flag */\n"
        "struct v {\n__u64 a;\n};\n"
        "/* Who writes it,\n * who reads it. */\n"
        'BPF_F_TABLE("lru_hash:" PIN_NODE "/m", u32, struct v, m, ENTRIES, ON_DEMAND);\n'
        "INLINE struct v *m_get(__u32 key)\n{\n\treturn m.lookup(&key);\n}\n"
    )
    spec = layout.map("m")
    assert (spec.type, spec.key_size, spec.value_size) == ("lru_hash", 4, 8)
    assert (spec.max_entries, spec.flags, spec.scope) == ("ENTRIES", 1, Scope.NODE)
    assert spec.description == "Who writes it, who reads it."


def test_families_differ() -> None:
    text = "struct a {\naddr x;\n#if FAMILY == 4\n__u32 pad;\n#else\n__u64 y;\n#endif\n};"
    assert fields(layout_of(text).struct("a")) == [("x", 0, 4), ("pad", 4, 4)]
    assert fields(layout_of(text, Family.IPV6).struct("a")) == [("x", 0, 16), ("y", 16, 8)]


def test_golden_bytes() -> None:
    four, six = load(Family.IPV4), load(Family.IPV6)
    vip6 = bytes.fromhex("fd000000000000000000000000000001")
    assert four.struct("frontend_key").pack(address=b"\x0a\x60\0\1", port=80, protocol=6) == (
        bytes.fromhex("0a600001 0050 06 00")
    )
    assert six.struct("frontend_key").pack(address=vip6, port=443, protocol=132) == (
        vip6 + bytes.fromhex("01bb 84 00")
    )
    assert four.struct("frontend").pack(service_id=258, kind=2, flags=1) == b"\x02\x01\x02\x01"
    assert four.struct("service").pack(
        cluster=3 << 32 | 7, local=0, affinity_timeout=80, flags=1
    ) == bytes.fromhex("07000000 03000000 0000000000000000 50000000 01 000000")
    assert four.struct("backend").pack(
        address=b"\x0a\1\0\2", port=8080, service_id=5, flags=5, weight=9
    ) == bytes.fromhex("0a010002 1f90 0500 05 09 0000")
    assert four.struct("interface").pack(
        bridge=4, source_id=1, flags=1, mac=bytes.fromhex("020000006a7e")
    ) == bytes.fromhex("04000000 01 01 020000006a7e")


def test_the_tables_entries_fill_cache_lines() -> None:
    for family, size in ((Family.IPV4, 32), (Family.IPV6, 64)):
        assert load(family).struct("flow").size == size
        assert load(family).struct("flow_set").size == 4 * size


def plain(value: Any) -> Any:
    """Structs as dicts, also those in others."""
    if hasattr(value, "_asdict"):
        return {name: plain(part) for name, part in value._asdict().items()}
    return tuple(map(plain, value)) if isinstance(value, tuple) else value


@pytest.mark.parametrize("family", list(Family))
def test_every_struct_comes_back(family: Family) -> None:
    """But for padding, which is written as zeros."""
    structs = load(family).structs
    assert structs.keys() >= {"service_name", "service_networks", "flow_set", "way_set", "scratch"}
    for struct in structs.values():
        data = bytearray(1 + index % 100 for index in range(struct.size))
        if struct.name == "service_name":
            data[-1] = 0  # a text ends
        again = struct.pack(**plain(struct.unpack(data)))
        changed = {place for place in range(struct.size) if again[place] != data[place]}
        assert all(again[place] == 0 for place in changed), struct.name
        padding = {
            place
            for field in struct.fields
            if field.padding
            for place in range(field.offset, field.offset + field.size)
        }
        assert changed >= padding and len(changed) < struct.size / 4 + len(padding), struct.name
        assert struct.unpack(again) == struct.unpack(data)


def test_texts_and_nested_structs() -> None:
    layout = layout_of(
        "struct pair {\n__be16 a;\n};\nstruct out {\nstruct pair x[2];\nchar t[4];\n};"
    )
    out = layout.struct("out")
    data = out.pack(x=[{"a": 1}, {"a": 2}], t="ab")
    assert data == b"\0\1\0\2ab\0\0"
    assert [one.a for one in out.unpack(data).x] == [1, 2]
    assert out.unpack(data).t == "ab"
    with pytest.raises(TypeError, match="at most 3 bytes"):
        out.pack(x=[{"a": 1}, {"a": 2}], t="abcd")


@pytest.mark.parametrize(
    ("values", "error"),
    [
        ({"address": b"1234", "port": 80}, "missing fields: protocol; unknown: none"),
        ({"address": b"1234", "port": 80, "protocol": 6, "pad": 0}, "unknown: pad"),
        ({"address": b"12345", "port": 80, "protocol": 6}, "address: 5 bytes instead of 4"),
        ({"address": b"1234", "port": 65536, "protocol": 6}, "frontend_key"),
    ],
)
def test_pack_refuses(values: dict[str, object], error: str) -> None:
    with pytest.raises(TypeError, match=error):
        load(Family.IPV4).struct("frontend_key").pack(**values)


def test_reasons_say_what_became_of_the_packet_and_what_to_do() -> None:
    reasons = load(Family.IPV4).reasons
    assert (reasons[16].name, reasons[16].verdict) == ("NO_ENDPOINTS", Verdict.REJECT)
    assert reasons[16].sentence == "the Service has no usable endpoint: refused"
    assert all(reason.sentence for reason in reasons.values())
    by_verdict = {reason.name: reason.verdict for reason in reasons.values()}
    assert by_verdict["ESTABLISHED"] is Verdict.FORWARD
    assert by_verdict["SOURCE_RANGE"] is Verdict.DROP
    assert by_verdict["TRUNCATED"] is by_verdict["NONE"] is Verdict.PASS
    unwanted = [one for one in reasons.values() if one.verdict is not Verdict.FORWARD]
    assert [one.name for one in unwanted if not one.remedy] == ["NONE"]


def test_another_folder(tmp_path: Path) -> None:
    (tmp_path / "ground").mkdir()
    for name in ("layout.h", "maps.h", "reason.h"):
        (tmp_path / "ground" / name).write_text("")
    (tmp_path / "ground" / "layout.h").write_text("struct only {\n__u32 a;\n};\n")
    (tmp_path / "ways.h").write_text("#define SEND_LEFT 0x80U\nstruct other {\nint b;\n};\n")
    (tmp_path / "kernel").mkdir()
    (tmp_path / "kernel" / "version.h").write_text("#define SEND_RIGHT 1\n")
    layout = load(Family.IPV4, tmp_path)
    assert list(layout.structs) == ["only"]
    assert layout.defines == {"SEND_LEFT": 0x80}


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("0x80000000U", 1 << 31),
        ("(1ULL << 29)", 1 << 29),
        ("(KNOWN | 4)", 7),
        ("~KNOWN", None),
        ("(-2)", -2),
        ("UNKNOWN", None),
        ("do_it(KNOWN)", None),
        ('"text"', None),
        ("(__u32)1", None),
    ],
)
def test_expressions(text: str, number: int | None) -> None:
    assert evaluate(text, {"KNOWN": 3}) == number


def test_any_header_tells_its_constants() -> None:
    header = parse_constants(
        "#define A 2\n"
        "#if LINK\n#define B 1\n#else\n#define B 2\n#endif\n"
        "#define SQUARE(x) ((x) * (x))\n"
        "enum e {\nONE = A,\nTWO, /* the second */\nALSO_ONE = ONE,\n};\n"
        "enum f {\nSIZE = sizeof(int),\nMORE,\n};\n"
        "struct any {\nint *x;\n};\n",
        "bpf/x.h",
        Family.IPV4,
    )
    assert header.defines == {"A": 2}
    (enum,) = header.enums
    assert [(one.name, one.number) for one in enum.values] == [
        ("ONE", 2),
        ("TWO", 3),
        ("ALSO_ONE", 2),
    ]
    assert enum.values[1].sentence == "the second"
    assert header.structs == header.maps == ()


def test_what_the_sources_say_of_programs_and_ways() -> None:
    layout = load(Family.IPV4)
    assert layout.enum("slow_path")["CALL_ICMP_ERROR"] > layout.enum("hook")["HOOK_TO_OUTSIDE"]
    assert layout.defines["SEND_TOO_BIG"] == (
        layout.defines["SEND_NEIGHBOUR"] | layout.defines["SEND_INWARDS"]
    )

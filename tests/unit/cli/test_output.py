"""Tables that fit, JSON that every reader reads, and who is meant by a filter."""

import json
from typing import Any

import click
import pytest

from ebpf_lb.cli import output
from ebpf_lb.cli.choice import Place, PlaceType, is_service, must_know
from ebpf_lb.errors import UserError
from ebpf_lb.model.values import Network, parse_address


@pytest.fixture
def eighty(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(output, "columns", lambda: 80)


def plain(text: str) -> str:
    return click.unstyle(text)


def test_a_table_is_as_wide_as_it_must_be() -> None:
    assert plain(output.table(["NAME", "N"], [["a", "1"], ["long", "12"]], right=["N"])) == (
        "NAME   N\na      1\nlong  12"
    )


@pytest.mark.usefixtures("eighty")
def test_what_does_not_fit_is_cut_and_said() -> None:
    rows = [["x" * 69 + "y", "10.0.0.1:80", "123456789"]]
    shown = plain(output.table(["SERVICE", "BACKEND", "PACKETS"], rows, right=["PACKETS"]))
    lines = shown.splitlines()
    assert all(len(line) <= 80 for line in lines)
    name, *others = lines[1].split()
    assert others == ["10.0.0.1:80", "123456789"]  # addresses and numbers stay whole
    assert name[0] == "x" and "…" in name and name[-1] == "y"  # both ends tell names apart
    assert lines[2] == "(SERVICE cut to fit: --wide shows all)"
    whole = plain(output.table(["SERVICE", "BACKEND", "PACKETS"], rows, wide=True))
    assert "x" * 69 + "y" in whole and "cut" not in whole


@pytest.mark.usefixtures("eighty")
def test_columns_without_room_are_left_out_and_said() -> None:
    header = [f"COLUMN {number:02}" for number in range(12)]
    shown = plain(output.table(header, [["x" * 20] * 12], indent="  "))
    lines = shown.splitlines()
    assert all(len(line) <= 80 for line in lines)
    kept = len(lines[1].split())
    assert 6 <= kept < 12
    said = " ".join(" ".join(lines[2:]).split())
    assert f"no room for {', '.join(header[kept:])}: --wide shows all" in said
    assert len(plain(output.table(header, [["x" * 20] * 12], wide=True)).splitlines()) == 2


@pytest.mark.usefixtures("eighty")
def test_sentences_are_wrapped_between_words() -> None:
    shown = output.wrapped("a-name-with-hyphens " * 9, "  - ", "    ").splitlines()
    assert all(len(line) <= 80 for line in shown)
    assert shown[0].startswith("  - a-name") and shown[1].startswith("    a-name")


@pytest.mark.usefixtures("eighty")
def test_numbers_are_never_cut() -> None:
    shown = plain(output.table(["A"], [["9" * 100]], right=["A"]))
    assert "9" * 100 in shown


def test_numbers_that_readers_of_json_would_round_are_texts() -> None:
    exact, big = 1 << 53, (1 << 53) + 1
    shown = json.loads(output.as_json({"a": [exact, {"b": big}], "c": True, "d": -big}))
    assert shown == {
        "schemaVersion": output.SCHEMA_VERSION,
        "a": [exact, {"b": str(big)}],
        "c": True,
        "d": str(-big),
    }


def test_more_rows_than_shown() -> None:
    assert plain(output.more(20, 500_000)) == "(499,980 more: --limit 0 shows all)"
    assert output.more(20, 20) == ""


@pytest.mark.parametrize(
    ("limit", "form", "rows"), [(None, "table", 20), (None, "json", None), (0, "table", None)]
)
def test_rows_wanted(limit: int | None, form: str, rows: int | None) -> None:
    assert output.rows_wanted(limit, form) == rows


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("10.0.0.1", Place(Network(parse_address("10.0.0.1"), 32))),
        ("10.0.0.1:80", Place(Network(parse_address("10.0.0.1"), 32), 80)),
        ("10.0.0.0/8", Place(Network(parse_address("10.0.0.0"), 8))),
        ("fd00::1", Place(Network(parse_address("fd00::1"), 128))),
        ("[fd00::1]:80", Place(Network(parse_address("fd00::1"), 128), 80)),
        ("fd00::/16", Place(Network(parse_address("fd00::"), 16))),
    ],
)
def test_places(text: str, place: Place) -> None:
    assert PlaceType().convert(text, None, None) == place


@pytest.mark.parametrize(
    "text", ["web", "10.0.0.1:", "10.0.0.1:x", "10.0.0.1:70000", "10.0.0.1/40"]
)
def test_what_is_no_place(text: str) -> None:
    with pytest.raises(click.BadParameter):
        PlaceType().convert(text, None, None)


def test_a_place_holds() -> None:
    place: Any = PlaceType().convert("10.0.0.0/8", None, None)
    assert place.holds(parse_address("10.9.9.9"), 1)
    assert not place.holds(parse_address("11.0.0.1"), 1)
    assert not place.holds(parse_address("fd00::1"), 1)
    assert place.whole == b""
    one: Any = PlaceType().convert("10.0.0.1:80", None, None)
    assert one.holds(parse_address("10.0.0.1"), 80)
    assert not one.holds(parse_address("10.0.0.1"), 81)
    assert one.whole == parse_address("10.0.0.1")


@pytest.mark.parametrize(
    ("wanted", "name", "meant"),
    [
        (None, "default/web:http", True),
        (None, None, True),
        ("web", "default/web:http", True),
        ("web:http", "default/web:http", True),
        ("default/web", "default/web:http", True),
        ("default/web:http", "default/web:http", True),
        ("web", "default/web", True),
        ("web", None, False),
        ("we", "default/web:http", False),
        ("web:https", "default/web:http", False),
        ("other/web", "default/web:http", False),
        ("http", "default/web:http", False),
    ],
)
def test_who_is_meant(wanted: str | None, name: str | None, meant: bool) -> None:
    assert is_service(wanted, name) is meant


def test_an_unknown_service_names_those_alike() -> None:
    must_know("web", {"default/web:http"})
    with pytest.raises(UserError, match=r"no Service 'b/web'; there is a/web:http\."):
        must_know("b/web", {"a/web:http", "a/dns"})

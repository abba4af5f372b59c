"""The report says what was measured, and whether goals are met."""

from __future__ import annotations

import json
import xml.etree.ElementTree as ElementTree
from typing import Any

import pytest

from tests.bench import goals, profile, report

PERF = """\
# Overhead  Symbol
    40.00%  [k] bpf_prog_0123456789abcdef_pod_ingress
    20.00%  [k] fib_table_lookup
    40.00%  [.] main
"""


def row(way: str, mode: str, base: str, *times_us: float) -> dict[str, Any]:
    return {"way": way, "family": "ipv4", "mode": mode, "base": base, "times_us": list(times_us)}


def paths(mine: tuple[float, ...], mode: str) -> dict[str, Any]:
    past, straight = "ebpf-lb past the stack, near", "straight, near"
    rows = [row(straight, mode, straight, 10.0, 20.0, 12.0), row(past, mode, straight, *mine)]
    name = f"{past}: {(goals.RATES | goals.TIMES)[mode]}, ipv4"
    return {
        "machine": "a machine", "rounds": 3, "services": 10, "pods": "ptp", "proxy": "kube-proxy",
        "rows": rows, "profiles": {name: [("program pod_ingress", 1.25)]},
    }  # fmt: skip


@pytest.mark.parametrize(
    ("mode", "mine", "median", "met"),
    [
        # of a rate more is better, of a time less; each round is compared with itself alone
        ("rr", (8.0, 16.0, 16.0), 1.25, True),
        ("rr", (10.0, 20.0, 12.0), 1.0, False),
        ("connect", (9.0, 18.0, 24.0), 0.9, True),
        ("connect", (11.0, 22.0, 12.0), 1.1, False),
    ],
)
def test_goals(mode: str, mine: tuple[float, ...], median: float, met: bool) -> None:
    part = paths(mine, mode)
    [judged] = goals.judged_paths(goals.Paths(part["rows"]), ["ipv4"], [mode])
    assert (judged.median, judged.met) == (pytest.approx(median), met)
    text = report.pages({"paths": part})[report.PAGE]
    assert f"**{median:.2f}**" in text
    assert ("`program pod_ingress` 1.25" in text) is not met


def test_what_a_profile_says() -> None:
    found = profile.parsed(PERF)
    assert found == pytest.approx({"program pod_ingress": 2 / 3, "fib_table_lookup": 1 / 3})
    more = profile.beyond(found, 9.0, {"fib_table_lookup": 1.0}, 2.0)
    assert more == [("program pod_ingress", 6.0), ("fib_table_lookup", 1.0)]


def test_the_page_is_what_runs_have_left() -> None:
    found = report.parts()
    written = report.pages(found)
    assert {"paths", "packets", "floods"} >= found.keys()
    for path, text in written.items():
        assert (report.PROJECT / path).read_text() == text, f"{path} was changed by hand"
    for path in written:
        if path.suffix == ".svg":
            ElementTree.fromstring((report.PROJECT / path).read_text())


def test_what_is_measured_again_replaces_its_part_alone(
    tmp_path: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in (report.PAGE, report.PLOTS / "x"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
    monkeypatch.setattr(report, "PROJECT", tmp_path)
    monkeypatch.setattr(report, "MEASURED", tmp_path / "measured")
    monkeypatch.setattr(report, "machine", lambda: "a machine")
    flood = {"flood": "SYN", "packets": 1, "rate": 1, "established": 9, "lost": 0, "tried": 7,
             "succeeded": 7, "evicted": 0, "without_room": 0, "before_mib": 1.0,
             "after_mib": 1.0}  # fmt: skip
    report.save("floods", {"seconds": 60, "way": "by the stack", "rows": [flood]})
    report.save("paths", paths((8.0, 16.0, 16.0), "rr"))
    report.save("paths", paths((9.0, 18.0, 18.0), "rr"))
    text = (tmp_path / report.PAGE).read_text()
    assert "| SYN | 1 | 1 | 9 | 0 | 7 | 7 |" in text and "**1.11**" in text
    assert json.loads((tmp_path / "measured" / "paths.json").read_text())["machine"] == "a machine"
    assert "measurements.md" in capsys.readouterr().out

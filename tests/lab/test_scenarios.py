"""Every lesson in the tests' lab, as the command shows it."""

import os
import re
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from ebpf_lb.lab.cluster import Lab
from ebpf_lb.lab.options import Options
from ebpf_lb.lessons.scenarios import catalog
from ebpf_lb.lessons.scenarios import run as running
from tests.lab.conftest import EBPF_LB, own_lab

Cli = Callable[..., Any]

# What must be rewritten where, in the order of the ways: machine and fields.
REWRITINGS = {
    "hostnames": ["node1 destination", "node1 source"],
    "hairpin": ["node1 destination", "node1 source"] * 2,
    "cross-node-snat": ["node2 source destination"] * 2,
    "etp-local": ["node1 destination", "node1 source"],
    "etp-local-drop": [],
    "node-socket": ["node1 destination"],
    "session-affinity": ["node1 destination", "node1 source"],
}


def rewritings(shown: str) -> list[str]:
    """`node2 source destination`, from the lines of one rewriting."""
    found: list[str] = []
    for line in shown.splitlines():
        if match := re.match(r" +└ (\S+) rewrites(?: at the socket| at XDP)? +(\w+)", line):
            found.append(f"{match[1]} {match[2]}")
        elif match := re.match(r" {12,}(source|destination) ", line):
            found[-1] += f" {match[1]}"
    return found


@pytest.mark.parametrize("family", ["ipv4", "ipv6"])
@pytest.mark.parametrize("name", catalog.names())
def test_a_lesson(lab: Lab, cli: Cli, tmp_path: Path, name: str, family: str) -> None:
    drawing = tmp_path / "way.svg"
    done = cli("scenario", "run", name, "--family", family, "-o", str(drawing))
    assert done.returncode == 0, done.stdout + done.stderr
    if name != "session-affinity":  # the backend that all keep to may be on the client's own node
        assert rewritings(done.stdout) == REWRITINGS[name]
    assert ElementTree.parse(drawing).getroot().tag == "{http://www.w3.org/2000/svg}svg"
    namespaces = lab.client.get("/api/v1/namespaces")["items"]
    left = [n for n in namespaces if n["metadata"]["name"] == f"scenario-{name}"]
    assert all("deletionTimestamp" in n["metadata"] for n in left)


def test_two_lessons_in_one_picture(cli: Cli, tmp_path: Path) -> None:
    """The client's address that is kept beside the one that is not."""
    drawing = tmp_path / "both.svg"
    done = cli("scenario", "run", "cross-node-snat", "etp-local", "-o", str(drawing))
    assert done.returncode == 0, done.stdout + done.stderr
    both = REWRITINGS["cross-node-snat"] + REWRITINGS["etp-local"]
    assert rewritings(done.stdout) == both
    said = {one.text for one in ElementTree.parse(drawing).iter("{http://www.w3.org/2000/svg}text")}
    assert {"cross-node-snat beside etp-local", "DNAT + SNAT", "DNAT", "DNAT undone"} <= said


def test_a_tunnel_without_ethernet_frames_is_drawn(tmp_path: Path) -> None:
    """What its devices carry, and what travels around that between the nodes."""
    with own_lab(Options(nodes=2, network="udp")) as lab:
        words = ["scenario", "run", "cross-node-snat", "-o", str(tmp_path / "way.svg")]
        done = subprocess.run(
            [EBPF_LB, "lab", *words],
            env={**os.environ, "EBPF_LB_LAB": lab.name}, capture_output=True, text=True,
            check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stdout + done.stderr
        assert rewritings(done.stdout) == REWRITINGS["cross-node-snat"]
        assert re.search(r"node1 +flannel0 .*in", done.stdout)
        assert "in UDP 172.30.0.12 → 172.30.0.11" in done.stdout


def test_session_affinity_keeps_all_connections_at_one_pod(cli: Cli) -> None:
    shown = cli("scenario", "run", "session-affinity").stdout
    served = re.findall(r"served by (\S+)", shown)
    assert len(served) == 6
    assert len(set(served)) == 1


def test_what_is_dropped_is_counted_by_its_reason(cli: Cli) -> None:
    shown = cli("scenario", "run", "etp-local-drop").stdout
    assert re.search(r"✕ it came in by eth0 of node2, and nobody saw it after that", shown)
    assert "The programs of node2 counted meanwhile: NO_LOCAL_ENDPOINTS" in shown


def test_all_are_listed_and_shown(cli: Cli) -> None:
    listed = cli("scenario", "list").stdout
    for name in catalog.names():
        scenario = catalog.load(name)
        assert scenario.title in listed
        shown = cli("scenario", "show", name).stdout
        assert scenario.title in shown and "kind: Service" in shown


def test_one_that_is_being_run_is_left_alone(lab: Lab, cli: Cli) -> None:
    hairpin = catalog.load("hairpin")
    with running.prepared(lab, hairpin):
        done = cli("scenario", "run", "hairpin")
        assert done.returncode == 1
        assert "scenario hairpin is being run in lab" in done.stderr
        assert lab.client.get(f"/api/v1/namespaces/{hairpin.namespace}/pods")["items"]
    assert cli("scenario", "run", "hairpin").returncode == 0


def test_a_drawing_that_cannot_be_written_is_refused_before_the_run(cli: Cli) -> None:
    done = cli("scenario", "run", "hairpin", "-o", "/nonexistent/way.svg")
    assert done.returncode == 2
    assert "nothing can be written into /nonexistent" in done.stderr
    assert done.stdout == "" and "applying" not in done.stderr


def test_an_unknown_one_is_explained(cli: Cli) -> None:
    done = cli("scenario", "run", "nonsense")
    assert done.returncode == 1
    assert "there is no scenario 'nonsense'" in done.stderr

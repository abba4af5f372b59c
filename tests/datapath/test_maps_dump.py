"""`ebpf-lb maps dump` over pinned maps: what people and scripts see."""

import json
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from click.testing import CliRunner, Result

from ebpf_lb.cli.main import main
from ebpf_lb.datapath.clock import ticks_per_second
from ebpf_lb.datapath.layout import load
from ebpf_lb.datapath.libbpf import maps
from ebpf_lb.datapath.libbpf.object import library, possible_cpus
from ebpf_lb.datapath.pins import Pins
from ebpf_lb.model.values import Family

from ..capabilities import BPF, BPFFS, ROOT, needs
from .pinned import pins
from .written import written_node

pytestmark = needs(ROOT, BPF, BPFFS)


@pytest.fixture(scope="module")
def node() -> Iterator[Pins]:
    with written_node("dump") as where:
        yield where


def run(where: Pins, *arguments: str) -> Result:
    return CliRunner().invoke(main, ["maps", "dump", "--bpffs", str(where.root), *arguments])


def rows(where: Pins, name: str) -> list[dict[str, object]]:
    result = run(where, name, "-o", "json", "--family", "ipv4")
    assert result.exit_code == 0, result.output
    found: list[dict[str, object]] = json.loads(result.output)["ipv4"][name]
    return found


def test_frontends(node: Pins) -> None:
    assert rows(node, "frontends") == [
        {"address": "10.96.0.10", "port": 0, "protocol": None, "kind": "UNSERVED"}
        | {"service": None, "flags": []},
        {"address": "10.96.0.10", "port": 80, "protocol": "TCP", "kind": "CLUSTER_IP"}
        | {"service": "default/web:http", "flags": []},
        {"address": "192.0.2.1", "port": 80, "protocol": "TCP", "kind": "LOAD_BALANCER"}
        | {"service": "default/web:http", "flags": ["LOCAL", "SOURCE_RANGES"]},
    ]


def test_services_and_backends(node: Pins) -> None:
    assert rows(node, "services") == [
        {
            "service": "default/web:http",
            "protocol": "TCP",
            "id": 1,
            "cluster": ["10.1.0.7:8080", "10.2.0.1:8080"],
            "local": ["10.1.0.7:8080"],
            "algorithm": "random",
            "affinity_timeout_s": 10800,
            "flags": ["HAS_ANY"],
        }
    ]
    assert [(row["address"], row["flags"]) for row in rows(node, "backends")] == [
        ("10.1.0.7", ["IN_CLUSTER_SET", "IN_LOCAL_SET", "ON_NODE"]),
        ("10.2.0.1", ["IN_CLUSTER_SET"]),
    ]
    assert [row["set"] for row in rows(node, "slots")] == ["cluster", "cluster", "local"]
    assert rows(node, "source_ranges") == [
        {"service": "default/web:http", "network": "198.51.100.0/24"}
    ]


def test_flows_and_affinity(node: Pins) -> None:
    (flow,) = rows(node, "flows")
    assert flow == flow | {
        "client": "10.1.0.9",
        "client_port": 40000,
        "vip": "10.96.0.10",
        "backend": "10.1.0.7",
        "protocol": "TCP",
        "state": "ESTABLISHED",
        "age_s": pytest.approx(10, abs=1 / ticks_per_second()),
        "service": "default/web:http",
    }
    assert rows(node, "affinity") == [
        {"client": "10.1.0.9", "service": "default/web:http", "backend_id": 1}
        | {"backend": "10.1.0.7:8080", "age_s": 0.0}
    ]
    table = run(node, "flows", "--family", "ipv4", "--wide").output
    assert "10.1.0.9:40000  -> 10.96.0.10:80  -> 10.1.0.7:8080  TCP" in table


def test_counters_have_sentences(node: Pins) -> None:
    cpus = possible_cpus()
    assert rows(node, "counters") == [
        {"reason": "NO_ENDPOINTS", "number": 16, "packets": 2 * cpus, "bytes": 100 * cpus}
        | {"meaning": "the Service has no usable endpoint: refused"}
    ]


def test_everything_in_both_forms(node: Pins) -> None:
    table, known = run(node).output, load(Family.IPV4).maps
    shown = json.loads(run(node, *known, "-o", "json").output)
    assert shown["ipv4"].keys() | shown["node"].keys() == known.keys()
    lines = {line.split()[0]: line.split()[1:] for line in table.splitlines() if line[:1] != "`"}
    assert lines["MAP"] == ["IPV4", "NODE", "IPV6"]
    assert lines["frontends"] == ["3", "0"]
    assert lines["flows"] == ["1", "0"]
    assert lines["reject_bucket"] == ["0"]
    named = run(node, "frontends", "config", "--wide").output
    for name in ("frontends", "config"):
        assert f"{name} (ipv4)" in named
    assert run(node).output == table


def test_columns_are_aligned(node: Pins) -> None:
    lines = run(node, "frontends", "--family", "ipv4").output.splitlines()[1:]
    column = lines[0].index("KIND")
    assert [line[column - 1] for line in lines] == [" "] * 4
    assert [line[column:].split()[0] for line in lines[1:]] == [
        "UNSERVED",
        "CLUSTER_IP",
        "LOAD_BALANCER",
    ]


def test_large_maps_are_read_in_large_pieces(node: Pins, monkeypatch: pytest.MonkeyPatch) -> None:
    """How long that takes, `make bench` tells."""
    called: Counter[str] = Counter()

    class Counting:
        def __getattr__(self, name: str) -> Callable[..., Any]:
            function = getattr(library(), name)

            def call(*arguments: Any) -> Any:
                called[name] += 1
                return function(*arguments)

            return call

    monkeypatch.setattr(maps, "library", Counting)
    assert run(node).exit_code == 0
    assert 0 < called.total() < 1000, called  # a table of flows has 2^18 sets


def test_the_command_needs_no_large_library(node: Pins) -> None:
    large = ["aiohttp", "bcc", "kubernetes", "prometheus_client", "pyroute2", "structlog", "yaml"]
    code = "import sys; from ebpf_lb.cli.main import main; main(standalone_mode=False)\n"
    code += f"print([name for name in {large} if name in sys.modules])"
    command = [sys.executable, "-c", code, "maps", "dump", "counters", "--bpffs", str(node.root)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"


def test_mistakes_are_one_sentence(node: Pins) -> None:
    result = run(node, "nothing")
    assert result.exit_code == 2
    assert "there is no map 'nothing'" in result.output
    with pins("empty") as empty:
        result = run(empty)
        assert result.exit_code == 1
        assert result.output.count("\n") == 1
        assert "No data path is loaded: nothing is pinned in" in result.output

"""The commands that tell what a node holds, over pinned maps: what people and scripts see."""

import json
import time
from collections.abc import Iterator
from typing import Any

import pytest
from click.testing import CliRunner, Result

from ebpf_lb.agent.metrics.maps import MapCollector
from ebpf_lb.cli.main import main
from ebpf_lb.datapath.layout import load
from ebpf_lb.datapath.libbpf import Map
from ebpf_lb.datapath.pins import Pins
from ebpf_lb.model.values import Family
from tests.support.packets import Packet

from ..capabilities import BPF, BPFFS, ROOT, needs
from .kernel import Kernel
from .pinned import pin_build, pins
from .written import written_node

pytestmark = needs(ROOT, BPF, BPFFS)

ENDS = {
    Family.IPV4: ("10.1.0.9", "10.96.0.10", "10.1.0.7"),
    Family.IPV6: ("fd00:1::9", "fd00:96::10", "fd00:1::7"),
}


@pytest.fixture(scope="module")
def node() -> Iterator[Pins]:
    with written_node("commands") as where:
        yield where


def run(where: Pins, *arguments: str) -> Result:
    return CliRunner().invoke(main, [*arguments, "--bpffs", str(where.root)])


def rows(where: Pins, command: str, *arguments: str) -> list[dict[str, Any]]:
    result = run(where, command, "-o", "json", *arguments)
    assert result.exit_code == 0, result.output
    found = json.loads(result.output)
    assert found["schemaVersion"] == 1
    listed: list[dict[str, Any]] = found[command]
    return listed


def test_services(node: Pins) -> None:
    (service,) = rows(node, "services")
    assert service["service"] == "default/web:http"
    assert service["cluster"] == ["10.1.0.7:8080", "10.2.0.1:8080"]
    assert service["local"] == ["10.1.0.7:8080"]
    assert [one["policy"] for one in service["frontends"]] == ["Cluster", "Local"]
    assert service["sourceRanges"] == ["198.51.100.0/24"]
    assert [(one["backend"], one["answered"]) for one in service["backends"]] == [
        ("10.1.0.7:8080", 1),
        ("10.2.0.1:8080", 0),
    ]
    table = run(node, "services", "--wide").output
    assert "default/web:http  TCP       10.96.0.10:80 +1       2      1" in table
    whole = run(node, "services", "web").output
    assert "192.0.2.1:80   Load Balancer  Local, source ranges" in whole
    assert "10.1.0.7:8080  here       Cluster, Local      1         1           0" in whole


def test_an_unknown_service_is_one_sentence(node: Pins) -> None:
    for command in (["services", "wib"], ["flows", "--service", "wib"], ["backends", "-s", "wib"]):
        result = run(node, *command)
        assert result.exit_code == 1
        assert result.output.startswith("Error: This node has no Service 'wib'.")


def test_backends_flows_and_affinity_by_filters(node: Pins) -> None:
    assert len(rows(node, "backends")) == 2
    assert [one["backend"] for one in rows(node, "backends", "--backend", "10.1.0.0/16")] == [
        "10.1.0.7:8080"
    ]
    assert rows(node, "backends", "--unanswered") == []
    (flow,) = rows(node, "flows")
    for found, arguments in (
        (1, ("--service", "web")),
        (1, ("--client", "10.1.0.9")),
        (1, ("--client", "10.1.0.9:40000", "--backend", "10.1.0.7:8080")),
        (1, ("--state", "established", "--sort", "age")),
        (1, ("--family", "ipv4")),
        (0, ("--client", "10.1.0.9:40001")),
        (0, ("--backend", "10.2.0.0/16")),
        (0, ("--unanswered",)),
        (0, ("--client", "fd00::1")),
        (0, ("--family", "ipv6")),
    ):
        assert len(rows(node, "flows", *arguments)) == found, arguments
    assert flow["kind"] == "flow"
    assert len(rows(node, "affinity", "--client", "10.1.0.0/16", "-s", "default/web")) == 1
    assert rows(node, "affinity", "--client", "10.2.0.0/16") == []


def test_the_longest_idle_first() -> None:
    with written_node("idle") as where:
        flow = load(Family.IPV4).struct("flow")
        with Map.open(where.current.maps(Family.IPV4) / "flows") as flows:
            entries = flows.lookup((200_000).to_bytes(4, "little"))
            assert entries is not None
            slot = 2  # where written_node() has it
            at, port = slot * flow.size, slot * flow.size + flow.offset("client_port")
            for number, ticks in enumerate((30, 10, 20)):
                word = int.from_bytes(entries[at : at + 8], "little") - ticks
                copy = bytearray(entries)
                copy[at : at + 8] = word.to_bytes(8, "little")
                copy[port : port + 2] = (50_000 + ticks).to_bytes(2, "big")
                flows.update((150_000 - number * 50_000).to_bytes(4, "little"), bytes(copy))
        found = rows(where, "flows", "--sort", "age", "--limit", "3")
        assert [one["client_port"] for one in found] == [50030, 50020, 50010]
        ages = [one["age_s"] for one in rows(where, "flows", "--sort", "age")]
        assert ages == sorted(ages, reverse=True) and len(ages) == 4


def test_a_flow_is_not_the_services_that_got_its_number() -> None:
    """What it asked is not a frontend of that Service."""
    with written_node("gone") as where:
        layout = load(Family.IPV4)
        with Map.open(where.current.maps(Family.IPV4) / "flows") as flows:
            index = (200_000).to_bytes(4, "little")
            entries = flows.lookup(index)
            assert entries is not None
            asked = layout.struct("flow").offset("vip") + 2 * layout.struct("flow").size
            other = entries[: asked + 3] + bytes([11]) + entries[asked + 4 :]
            flows.update(index, other)
        assert rows(where, "flows", "--service", "web") == []
        (flow,) = rows(where, "flows")
        assert (flow["vip"], flow["service"]) == ("10.96.0.11", None)
        assert "gone" in run(where, "flows").output


def test_backends_in_metrics_as_many_as_are_wanted(node: Pins) -> None:
    def told(most: int, name: str = "connections") -> dict[tuple[str, ...], float]:
        [metric] = [
            one
            for one in MapCollector(node.current, list, most).collect()
            if one.name == f"ebpf_lb_backend_{name}"
        ]
        return {tuple(one.labels.values()): one.value for one in metric.samples}

    place = ("ipv4", "default/web:http", "TCP", "10.1.0.7:8080")
    assert told(5) == {
        (*place, "answered"): 1,
        (*place, "unanswered"): 0,
        (*place, "refused"): 0,
    }
    assert told(5, "ended_connections").keys() == told(5).keys()
    assert not any(
        one.name.startswith("ebpf_lb_backend_")
        for one in MapCollector(node.current, list).collect()
    )


def test_mistakes_name_what_there_is(node: Pins) -> None:
    result = run(node, "flows", "--state", "OPEN")
    assert "there is no state 'OPEN'; there are FREE" in result.output
    assert "'x' is not an address" in run(node, "flows", "--client", "x").output
    assert "there is no reason 'X'; there are NONE, NEW" in run(node, "reasons", "X").output


def test_maps_by_filters(node: Pins) -> None:
    result = run(node, "maps", "dump", "-o", "json", "--service", "web", "--family", "ipv4")
    shown = json.loads(result.output)["ipv4"]
    assert len(shown["frontends"]) == 2  # not the other ports of its address, which are nobody's
    assert {"services", "backends", "flows", "affinity"} <= shown.keys()
    assert "config" not in shown
    result = run(node, "maps", "dump", "-o", "json", "backends", "--backend", "10.2.0.1")
    shown = json.loads(result.output)["ipv4"]
    assert [one["address"] for one in shown["backends"]] == ["10.2.0.1"]


def test_reasons_with_what_was_counted(node: Pins) -> None:
    (one,) = rows(node, "reasons", "no_endpoints")
    assert one["packets"] > 0
    assert one["verdict"] == "reject"
    assert one["remedy"]
    everything = run(node, "reasons").output
    for reason in load(Family.IPV4).reasons.values():
        assert reason.name in everything
    with pins("no-reasons") as empty:
        assert rows(empty, "reasons", "NEW")[0]["packets"] is None


def test_status_without_an_agent(node: Pins) -> None:
    result = run(node, "status")
    assert result.exit_code == 1
    assert result.output.startswith("This node is unwell.")
    assert "No agent has run for" in result.output
    assert all(len(line) <= 80 for line in result.output.splitlines())
    shown = json.loads(run(node, "status", "-o", "json").output)
    assert shown["well"] is False
    assert shown["agent"]["runs"] is False
    levels = {one["map"]: (one["used"], one["room"]) for one in shown["maps"]["ipv4"]}
    assert levels["frontends"] == (3, 1024)
    assert levels["backends"] == (2, 1024)
    with pins("no-status") as empty:
        result = run(empty, "status")
        assert result.exit_code == 1
        assert "No data path is loaded" in result.output


def test_every_table_fits_eighty_columns(node: Pins) -> None:
    for command in ("services", "backends", "flows", "affinity", "reasons", "status"):
        for line in run(node, command).output.splitlines():
            assert len(line) <= 80, (command, line)


def test_a_large_table_answers_its_first_screen_at_once() -> None:
    """Of half a million flows only so many are taken apart as are shown."""
    with pins("large") as where:
        sets = 1 << 17
        build = pin_build(where, entries={"flows": sets})
        layout = load(Family.IPV4)
        defines, established = layout.defines, layout.enum("flow_state")["FLOW_ESTABLISHED"]
        with Map.open(build.maps(Family.IPV4) / "flows") as flows:
            for first in range(0, sets, 4096):
                entries = []
                for number in range(4 * first, 4 * (first + 4096)):
                    word = established << defines["FLOW_STATE_SHIFT"]
                    word |= 1 << defines["FLOW_PROTOCOL_SHIFT"]
                    entries.append(
                        word.to_bytes(8, "little")
                        + bytes([10, 1, 0, 9, 10, 96, 0, 10, 10, 1, 0, 7])
                        + (number & 0xFFFF).to_bytes(2)
                        + bytes([0, 80, 0x1F, 0x90, 0, 0, 0, 0, 0, 0])
                    )
                keys = b"".join(n.to_bytes(4, "little") for n in range(first, first + 4096))
                flows.update_batch(keys, b"".join(entries))
        started = time.process_time()
        result = run(where, "flows")
        first_screen_s = time.process_time() - started
        assert result.output.count("ESTABLIS") == 20
        assert "there are more" in result.output
        started = time.process_time()
        (summary,) = rows(where, "flows", "--client", "10.1.0.9:77", "--limit", "1")
        all_of_them_s = time.process_time() - started
        assert summary["client_port"] == 77
        assert first_screen_s < all_of_them_s / 2


def test_flows_are_ended_after_a_question(kernel: Kernel, loaded_root: Any) -> None:
    client, vip, backend = ENDS[kernel.family]
    kernel.service(vip, 80, [(backend, 8080)])
    kernel.run("pod_ingress", Packet(client, vip, 40000, 80))
    where = Pins(loaded_root)
    family = kernel.family.directory
    arguments = ("flows", "--delete", "--client", client, "--family", family)
    assert len(kernel.flows()) == 1
    declined = CliRunner().invoke(main, [*arguments, "--bpffs", str(where.root)], input="n\n")
    assert "End 1 connections on this node?" in declined.output
    assert len(kernel.flows()) == 1
    result = run(where, *arguments, "--yes")
    assert "Ended 1 connections." in result.output
    assert kernel.flows() == []

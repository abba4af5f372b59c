"""What `explain` says is what a packet then gets, and asking changes nothing."""

import json
import os
import random
import socket
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, nullcontext
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from ebpf_lb.cli.beyond import Route
from ebpf_lb.cli.explain.way import Hooks
from ebpf_lb.cli.main import main
from ebpf_lb.datapath.dry_run import Sandbox
from ebpf_lb.datapath.question import Client, Decision, Question
from ebpf_lb.datapath.reader import View
from ebpf_lb.model.values import Family, Network, Protocol, format_endpoint, parse_address
from ebpf_lb.plan.forwarding import FrontendFlag, FrontendKind
from tests.capabilities import CGROUP2, DATAPATH, needs
from tests.datapath.kernel import Kernel
from tests.support.packets import Packet

CLIENTS = {
    Family.IPV4: ("198.51.100.7", "203.0.113.9"),
    Family.IPV6: ("2001:db8::7", "2001:db8:9::9"),
}
VIPS = {
    Family.IPV4: ("10.96.0.1", "192.0.2.1", "192.0.2.2", "10.96.0.9"),
    Family.IPV6: ("fd00:96::1", "2001:db8:2::1", "2001:db8:2::2", "fd00:96::9"),
}
BACKENDS = {
    Family.IPV4: ("10.1.0.1", "10.1.0.2", "10.2.0.1"),
    Family.IPV6: ("fd00:1::1", "fd00:1::2", "fd00:2::1"),
}
LOOPBACK_ROUTE = Route("lo", 1, None, 65536, False, None, "")
RANGES = {Family.IPV4: ("198.51.100.0", 24), Family.IPV6: ("2001:db8::", 48)}


def services(kernel: Kernel) -> None:
    """One that everybody may ask, one for some clients alone, one whose policy is Local and that
    has nobody here, and one without endpoints."""
    first, second, third, fourth = VIPS[kernel.family]
    here, also_here, far = (
        (BACKENDS[kernel.family][0], 8080),
        (BACKENDS[kernel.family][1], 8080),
        (BACKENDS[kernel.family][2], 8080),
    )
    text, length = RANGES[kernel.family]
    kernel.service(first, 80, [], local=[here, also_here], name="all")
    kernel.service(
        second,
        80,
        [],
        local=[here],
        kind=FrontendKind.LOAD_BALANCER,
        flags=FrontendFlag.SOURCE_RANGES,
        source_ranges=[Network(parse_address(text), length)],
        name="some",
    )
    kernel.service(
        third,
        80,
        [far],
        kind=FrontendKind.LOAD_BALANCER,
        flags=FrontendFlag.LOCAL,
        name="elsewhere",
    )
    kernel.service(fourth, 80, [], name="empty")


def ask(kernel: Kernel, packet: Packet) -> Decision:
    with Question(View(kernel.build, kernel.family)) as question:
        return question.ask(
            Client.REMOTE,
            (parse_address(packet.source), packet.source_port),
            (parse_address(packet.destination), packet.destination_port),
            Protocol.TCP,
        )


def contents(kernel: Kernel) -> dict[str, list[tuple[bytes, bytes]]]:
    """All maps of the family, as bytes."""
    found = {}
    for path in sorted(kernel.build.maps(kernel.family).iterdir()):
        if path.name not in ("calls", "scratch"):
            with kernel.open(path.name) as table:
                found[path.name] = sorted(table.items())
    return found


def test_what_is_said_is_what_a_packet_gets(kernel: Kernel) -> None:
    services(kernel)
    rng = random.Random(os.getpid())
    for number in range(60):
        packet = Packet(
            rng.choice(CLIENTS[kernel.family]),
            rng.choice(VIPS[kernel.family]),
            40000 + number,
            rng.choice((80, 80, 80, 81)),
        )
        decision = ask(kernel, packet)
        before = kernel.counters()
        kernel.run("uplink_ingress", packet)
        added = kernel.counters() - before
        made = {
            (entry.backend, entry.backend_port)  # type: ignore[attr-defined]
            for _, entry in kernel.flows()
            if entry.client_port == packet.source_port  # type: ignore[attr-defined]
        }
        if decision.action == "TRANSLATE":
            assert added["NEW"] == 1, (packet, decision)
            assert made == {(decision.backend, decision.backend_port)}
        elif decision.action == "PASS":
            assert not added
        else:
            assert added[decision.reason.name] == 1, (packet, decision)
            assert not made


def test_asking_changes_nothing(kernel: Kernel) -> None:
    services(kernel)
    before = contents(kernel)
    for vip in VIPS[kernel.family]:
        for client in CLIENTS[kernel.family]:
            ask(kernel, Packet(client, vip, 40000, 80))
    assert contents(kernel) == before


@pytest.fixture(scope="module")
def _sandboxes(_kernels: Mapping[Family, Kernel]) -> Iterator[dict[Family, Sandbox]]:
    with ExitStack() as opened:
        yield {
            family: opened.enter_context(Sandbox(View(one.build, family)))
            for family, one in _kernels.items()
        }


@pytest.fixture(autouse=True)
def _hooks(
    request: pytest.FixtureRequest,
    monkeypatch: pytest.MonkeyPatch,
    _sandboxes: Mapping[Family, Sandbox],
) -> None:
    """As if everybody were behind one interface with an uplink's programs, which are verified once
    for all tests but one."""
    monkeypatch.setattr("ebpf_lb.cli.explain.way.route_to", lambda address: LOOPBACK_ROUTE)
    hooks = Hooks(lambda ifindex: "uplink", lambda ifindex: False, False)
    monkeypatch.setattr("ebpf_lb.cli.explain.decided.hooks_of", lambda view: hooks)

    def again(view: View) -> Any:
        _sandboxes[view.family].view = view
        return nullcontext(_sandboxes[view.family])

    if request.node.originalname != test_the_text.__name__:
        monkeypatch.setattr("ebpf_lb.datapath.dry_run.Sandbox", again)


@pytest.fixture
def explain(kernel: Kernel, loaded_root: Path) -> Any:
    services(kernel)

    def run(*arguments: str) -> dict[str, Any]:
        where = ["--bpffs", str(loaded_root), "--family", kernel.family.directory]
        alone = ["--no-api", "--no-echo", "-o", "json"]
        result = CliRunner().invoke(main, ["explain", *arguments, *where, *alone])
        assert result.exit_code == 0, result.output
        found: dict[str, Any] = json.loads(result.output)
        return found

    return run


def test_each_verdict_with_its_cause(kernel: Kernel, explain: Any) -> None:
    client = CLIENTS[kernel.family][1]
    found = explain(client, "test/all")
    assert (found["verdict"], found["reason"], found["service"]) == ("forward", "NEW", "test/all")
    assert found["backend"] in {one["address"] for one in found["candidates"]}
    assert [one["share"] for one in found["candidates"]] == [0.5, 0.5]
    assert (found["source"] or "").startswith(("[" if kernel.family == 6 else "") + client)
    found = explain(client, "some")
    assert found["reason"] == "SOURCE_RANGE"
    network = "/".join(map(str, RANGES[kernel.family]))
    why = f"{client} is in none of the Service's loadBalancerSourceRanges ({network})."
    assert why in found["troubles"]
    assert {"at": "source ranges", "says": why, "rules": ["VE-9"]} in found["steps"]
    assert explain(CLIENTS[kernel.family][0], "some")["verdict"] == "forward"
    found = explain(client, "elsewhere")
    assert (found["verdict"], found["reason"]) == ("drop", "NO_LOCAL_ENDPOINTS")
    assert [one["why"] for one in found["excluded"]] == [
        "it runs on another node, and the policy is Local"
    ]
    assert explain("node", "elsewhere")["verdict"] == "forward"
    found = explain(client, "empty")
    assert (found["verdict"], found["reason"], found["backend"]) == ("reject", "NO_ENDPOINTS", None)


def test_steps_there_and_back_and_all_shares(kernel: Kernel, explain: Any) -> None:
    client = CLIENTS[kernel.family][1]
    found = explain(client, "test/all", "--all")
    backend, frontend = found["backend"], found["frontend"]
    says = [step["says"] for step in found["steps"]]
    assert f"DNAT: the destination {frontend} becomes {backend}." in says
    assert f"The backend sees its client as it is, {found['source']}." in says
    assert found["back"][0]["says"] == f"{backend} answers {found['source']}."
    assert found["back"][-1]["says"].startswith(f"The source {backend} becomes {frontend} again")
    assert {rule for step in found["steps"] for rule in step["rules"]} == {"VE-2", "VE-13"}


def test_where_no_program_is_nothing_is_translated(
    kernel: Kernel, explain: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    hooks = Hooks(lambda ifindex: "", lambda ifindex: False, False)
    monkeypatch.setattr("ebpf_lb.cli.explain.decided.hooks_of", lambda view: hooks)
    found = explain(CLIENTS[kernel.family][0], "test/all")
    assert (found["verdict"], found["backend"]) == ("pass", None)
    assert found["troubles"][:1] == [
        "None of our programs is at lo, where this client's packets pass: nothing is translated "
        "there. `ebpf-lb status` shows the hooks."
    ]


@needs(*DATAPATH, CGROUP2)
@pytest.mark.rule("KI-14", "KI-15")
@pytest.mark.parametrize("kind", [socket.SOCK_STREAM, socket.SOCK_DGRAM], ids=["tcp", "udp"])
def test_who_asks_loopback_does_so_by_a_socket(
    kernel: Kernel, explain: Any, monkeypatch: pytest.MonkeyPatch, kind: socket.SocketKind
) -> None:
    """And a process that listens on that very address goes first."""
    hooks = Hooks(lambda ifindex: "loopback", lambda ifindex: False, True)
    monkeypatch.setattr("ebpf_lb.cli.explain.decided.hooks_of", lambda view: hooks)
    here = LOOPBACK_ROUTE._replace(local=True)
    monkeypatch.setattr("ebpf_lb.cli.explain.way.route_to", lambda address: here)
    family, address = (
        (socket.AF_INET, "127.0.0.1") if kernel.family is Family.IPV4 else (socket.AF_INET6, "::1")
    )
    with socket.socket(family, kind) as own:
        own.bind((address, 0))
        port, stream = own.getsockname()[1], kind is socket.SOCK_STREAM
        kernel.service(
            address,
            port,
            [(BACKENDS[kernel.family][0], 8080)],
            protocol=Protocol.TCP if stream else Protocol.UDP,
            kind=FrontendKind.NODE_PORT,
            name="near",
        )
        if stream:
            own.listen()
        target = format_endpoint(parse_address(address), port)
        asked = ("node", f"{target}/{'tcp' if stream else 'udp'}")
        taken = explain(*asked)
        assert taken["verdict"] == "pass"
        assert any("listens on that very address" in one for one in taken["beyond"]), taken
    before = contents(kernel)
    found = explain(*asked)
    assert contents(kernel) == before
    assert (found["verdict"], found["reason"]) == ("forward", "SOCKET"), found
    steps = [(one["at"], one["says"]) for one in found["steps"] + found["back"]]
    backend = found["backend"]
    assert ("the node's own socket", f"DNAT: the destination {target} becomes {backend}.") in steps
    assert steps[-1][0] == "the node's own socket"
    assert steps[-1][1].startswith(f"The source {backend} becomes {target} again")


def test_where_the_programs_cannot_be_run_they_are_asked(
    kernel: Kernel, explain: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of another version than the agent's, say."""
    monkeypatch.setattr("ebpf_lb.datapath.loader.source.build_id", lambda *_: "another")
    monkeypatch.setattr("ebpf_lb.datapath.dry_run.Sandbox", Sandbox)
    found = explain(CLIENTS[kernel.family][0], "test/all")
    assert found["verdict"] == "forward"
    assert found["beyond"][0] == (
        "The programs were not run on a made packet, only asked for the verdict: the agent on this "
        "node has another version than this command."
    )


def test_an_existing_connection(kernel: Kernel, explain: Any, loaded_root: Path) -> None:
    client, vip = CLIENTS[kernel.family][0], VIPS[kernel.family][0]
    kernel.run("uplink_ingress", Packet(client, vip, 40009, 80))
    bracketed = f"[{client}]" if kernel.family == 6 else client
    (flow,) = explain("--flow", f"{bracketed}:40009", "test/all")["flows"]
    assert (flow["verdict"], flow["service"]) == ("forward", "test/all")
    assert flow["backend"] in {
        f"{one}:8080".replace("fd", "[fd").replace(":8080", "]:8080")
        if kernel.family == 6
        else f"{one}:8080"
        for one in BACKENDS[kernel.family]
    }
    assert flow["troubles"][0] == f"{flow['backend']} has not answered."
    assert explain("--flow", f"{bracketed}:40010", "test/all")["flows"] == []


def test_a_drawing(kernel: Kernel, loaded_root: Path, tmp_path: Path) -> None:
    services(kernel)
    for number, service in enumerate(("all", "empty", "elsewhere")):
        file = tmp_path / f"{number}.svg"
        where = ["--bpffs", str(loaded_root), "--family", kernel.family.directory]
        where += ["--no-api", "--no-echo", "-o", str(file)]
        result = CliRunner().invoke(main, ["explain", service, *where])
        assert result.exit_code == 0, result.output
        drawn = file.read_text()
        assert drawn.startswith(("<svg", "<?xml"))
        assert "no packet was sent" in drawn


def test_what_is_near(kernel: Kernel, explain: Any) -> None:
    vip = VIPS[kernel.family][1]
    bracketed = f"[{vip}]" if kernel.family == 6 else vip
    found = explain(f"{bracketed}:443")
    assert found["verdict"] == "pass"
    said = [step["says"] for step in found["steps"]]
    assert "The same address serves 80/TCP (test/some)." in said


def test_the_text(kernel: Kernel, loaded_root: Path) -> None:
    services(kernel)
    where = ["--bpffs", str(loaded_root), "--family", kernel.family.directory]
    where += ["--no-api", "--no-echo"]
    shown = CliRunner().invoke(main, ["explain", "node", "empty", *where]).output
    assert "reject" in shown.splitlines()[1]
    assert "NO_ENDPOINTS: the Service has no usable endpoint" in shown
    assert all(len(line) <= 80 for line in shown.splitlines())
    result = CliRunner().invoke(main, ["explain", "nobody", *where])
    assert result.exit_code == 1
    assert "This node serves no 'nobody' by TCP." in result.output

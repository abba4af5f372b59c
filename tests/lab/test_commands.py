"""The commands that tell how a node is, on a node of the lab with a real agent."""

import json
import socket
import subprocess
import sys
import tarfile
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from ebpf_lb.datapath.attach.cgroup import remove_link
from ebpf_lb.datapath.libbpf import Map
from ebpf_lb.datapath.pins import Pins
from ebpf_lb.datapath.reader import View
from ebpf_lb.lab.state import State
from ebpf_lb.model.values import Family, parse_address
from tests.lab.conftest import Room
from tests.support.checker import SETTLED_S, Reaches, Refused, expect
from tests.support.manifests import cluster_ip, deployment, service

NODE = "node1"
WEB, EMPTY = 231, 232
EBPF_LB = [sys.executable, "-m", "ebpf_lb"]


def run(room: Room, *arguments: str, node: str = NODE) -> "subprocess.CompletedProcess[str]":
    return room.lab.exec(node, [*EBPF_LB, *arguments])


def told(room: Room, *arguments: str) -> Any:
    done = run(room, *arguments, "-o", "json")
    assert done.returncode in (0, 1), done.stderr
    return json.loads(done.stdout)


@pytest.fixture(scope="module")
def web(shared_room: Room) -> Room:
    """A Service with two pods, another one without any, and a client on node1."""
    shared_room.apply(
        deployment("client", node=NODE),
        deployment("web", replicas=2),
        service("web", number=WEB),
        service("empty", app="nobody", number=EMPTY),
    )
    return shared_room


def ask(room: Room, number: int, family: str, wanted: Any) -> None:
    address = cluster_ip(number, family)
    bracketed = f"[{address}]" if family == "ipv6" else address
    expect(room.lab, room.pod("client"), f"{bracketed}:80/tcp", wanted)


def test_a_node_that_is_well(web: Room) -> None:
    done = run(web, "status")
    assert done.returncode == 0, done.stdout
    assert done.stdout.startswith("This node is well.")
    shown = told(web, "status")
    assert shown["well"] is True
    assert shown["problems"] == []
    assert shown["agent"]["runs"] is True
    assert shown["agent"]["lastSyncSecondsAgo"] is not None
    assert shown["servicePorts"] >= 2
    assert {"lo", "eth0"} <= {one["name"] for one in shown["interfaces"]}
    assert all(one["programs"] for one in shown["interfaces"])
    assert "connect4" in shown["socketHooks"]


def agents_options(room: Room) -> list[str]:
    """Those of the node's agent."""
    process = State.load(room.lab.names).processes[room.lab.node(NODE).agent]
    line = Path(f"/proc/{process.pid}/cmdline").read_text().split("\0")
    return line[line.index("agent") + 1 : -1]


def test_a_node_is_looked_over_with_one_line_for_each_thing(web: Room) -> None:
    shown = told(web, "doctor", *agents_options(web))
    assert [one for one in shown["findings"] if one["sign"] == "bad"] == [] and shown["well"]
    found = {one["what"]: one for one in shown["findings"]}
    assert "come by eth0" in found["uplinks"]["finding"]
    assert found["ebpf-lb"]["finding"].startswith("an agent runs, and programs are loaded")
    assert found["bpffs"]["sign"] == found["cgroup"]["sign"] == "good"


def test_the_kernel_holds_what_the_api_says_and_what_differs_is_named(web: Room) -> None:
    options = agents_options(web)
    done = run(web, "verify", *options, "--repair")  # an agent on a busy machine may be behind
    assert (done.returncode, done.stdout) == (0, "The kernel holds what the API says.\n"), done

    web.lab.stop_agent(NODE)
    try:
        view = View(Pins(web.lab.node(NODE).bpffs).current, Family.IPV4)
        gone = parse_address(cluster_ip(WEB, "ipv4"))
        with Map.open(view.build.maps(Family.IPV4) / "frontends") as table:
            for key, _ in list(table.items()):
                decoded = view.layout.struct("frontend_key").unpack(key)
                if decoded.address == gone and decoded.port:
                    table.delete(key)
        with Map.open(view.build.maps(Family.IPV4) / "interfaces") as table:
            with web.lab.entered(NODE):
                uplink = socket.if_nametoindex("eth0")
            assert table.delete(uplink.to_bytes(4, "little"))
        with Map.open(view.build.maps(Family.IPV6) / "pod_networks") as table:
            [(network, _)] = list(table.items())
            table.delete(network)
        remove_link(Pins(web.lab.node(NODE).bpffs).links / "ipv4-connect4")
        pin = view.build.programs(Family.IPV6) / "sweep"
        pin.rename(pin.with_name("elsewhere"))
        shown = told(web, "verify", *options)
        pin.with_name("elsewhere").rename(pin)
        where = f"{cluster_ip(WEB, 'ipv4')}:80 is missing"
        assert f"{web.namespace}/web:tcp (TCP, ipv4): {where}" in shown["differences"]
        assert "not all of the stack programs and maps are pinned" in shown["differences"]
        assert "ipv4: eth0: it has no entry among the interfaces" in shown["differences"]
        assert any("ipv6: the pod network" in one for one in shown["differences"])
        cgroup = web.lab.node(NODE).cgroup
        missing = "the program ipv4-connect4 is not there, for the node's own sockets"
        assert f"{cgroup}: {missing}" in shown["differences"]
        done = run(web, "verify", *options, "--repair")
        assert done.returncode == 2 and "no agent runs" in done.stderr
    finally:
        web.lab.start_agent(NODE)
    done = run(web, "verify", *options, "--repair")
    assert done.returncode == 0, done.stdout
    ask(web, WEB, "ipv4", Reaches(set(web.pods("web"))))


def test_a_node_without_an_agent_says_since_when(web: Room) -> None:
    web.lab.stop_agent(NODE)
    try:
        deadline = time.monotonic() + SETTLED_S
        while (shown := told(web, "status"))["agent"]["runs"]:
            assert time.monotonic() < deadline
            time.sleep(0.1)
        assert shown["well"] is False
        assert run(web, "status").returncode == 1
        assert shown["agent"]["lastSignOfLifeSecondsAgo"] < 60
        assert any(text.startswith("No agent has run for") for text in shown["problems"])
    finally:
        web.lab.start_agent(NODE)


@pytest.mark.parametrize("family", ["ipv4", "ipv6"])
def test_services_backends_and_flows(web: Room, family: str) -> None:
    ask(web, WEB, family, Reaches(set(web.pods("web"))))
    name = f"{web.namespace}/web"
    services = told(web, "services", name, "--family", family)["services"]
    tcp = next(one for one in services if one["protocol"] == "TCP")
    assert len(tcp["cluster"]) == 2
    assert tcp["connections"] > 0
    backends = told(web, "backends", "--service", name, "--family", family)["backends"]
    assert {one["backend"] for one in backends} >= set(tcp["cluster"])
    client = web.pods("client")[web.pod("client").partition("/")[2]]
    [address] = [one for one in client.addresses if (":" in one) == (family == "ipv6")]
    # a flow outlives its Service, and the next one may have been given its number: this client's
    asked = ("--service", name, "--client", address, "--family", family)
    flows = told(web, "flows", *asked)["flows"]
    assert {one["protocol"] for one in flows} == {"TCP"}
    assert {f"{one['backend']}" for one in flows} <= {
        one.rpartition(":")[0].strip("[]") for one in tcp["cluster"]
    }
    assert run(web, "services", f"{name}").stdout.startswith(name)


@pytest.mark.parametrize("family", ["ipv4", "ipv6"])
def test_a_refusal_is_counted_where_it_is_asked_for(web: Room, family: str) -> None:
    ask(web, EMPTY, family, Refused())
    shown = told(web, "reasons", "NO_ENDPOINTS")["reasons"]
    assert shown[0]["packets"] > 0
    assert shown[0]["verdict"] == "reject"
    listed = run(web, "services", f"{web.namespace}/empty").stdout
    assert "No endpoint is usable: every connection is refused." in listed


@pytest.mark.parametrize("family", ["ipv4", "ipv6"])
def test_explain_says_what_the_client_gets(web: Room, family: str) -> None:
    client = web.pods("client")[web.pod("client").partition("/")[2]]
    [address] = [one for one in client.addresses if (":" in one) == (family == "ipv6")]
    name = f"{web.namespace}/web"
    found = told(web, "explain", address, name, "--family", family)
    assert (found["verdict"], found["reason"]) == ("forward", "NEW"), found
    assert len(found["candidates"]) == 2
    assert any(text.startswith("The way to") for text in found["beyond"]), found
    found = told(web, "explain", address, f"{web.namespace}/empty", "--family", family)
    assert (found["verdict"], found["reason"]) == ("reject", "NO_ENDPOINTS")


def test_explain_asks_by_a_socket_where_the_node_asks(web: Room) -> None:
    """One that the agent's own programs leave alone, as if it were a pod's."""
    found = told(web, "explain", "node", f"{web.namespace}/web", "--no-echo")
    assert found["verdict"] == "forward"
    assert not any("were not run" in one for one in found["beyond"]), found
    steps = [(one["at"], one["says"]) for one in found["steps"] + found["back"]]
    asked, backend = found["frontend"], found["backend"]
    assert ("the node's own socket", f"DNAT: the destination {asked} becomes {backend}.") in steps
    assert steps[-1][0] == "the node's own socket"
    assert f"The source {backend} becomes {asked} again" in steps[-1][1]
    assert not any("would come from" in one for one in found["troubles"]), found


def test_a_bundle_holds_what_is_needed_and_no_secret(web: Room, tmp_path: Path) -> None:
    file = tmp_path / "bundle.tar.gz"
    done = run(web, "bundle", str(file))
    assert done.returncode == 0, done.stderr
    with tarfile.open(file) as archive:
        parts = {Path(one.name).name: archive.extractfile(one) for one in archive}
        content = {name: part.read().decode() for name, part in parts.items() if part}
    assert content["status.txt"].startswith("This node is well.")
    assert f"{web.namespace}/web" in content["services.json"]
    assert "ebpf_lb_packets_total" in content["metrics.txt"]
    assert "flow_seed" not in content["maps.json"]
    for secret in ("client-key-data", "Bearer ", "PRIVATE KEY"):
        assert not any(secret in text for text in content.values())


@pytest.mark.parametrize("family", ["ipv4", "ipv6"])
def test_monitor_tells_a_refusal_as_it_happens(web: Room, family: str, tmp_path: Path) -> None:
    """With the Service's name, the client, and the packet in a file."""
    name, file = f"{web.namespace}/empty", tmp_path / "seen.pcapng"
    heard: list[subprocess.CompletedProcess[str]] = []
    arguments = ["monitor", "--service", name, "--family", family, "--count", "1", "-o", "json"]
    listener = threading.Thread(
        target=lambda: heard.append(run(web, *arguments, "--write", str(file)))
    )
    listener.start()
    deadline = time.monotonic() + SETTLED_S
    while listener.is_alive():
        assert time.monotonic() < deadline, "nothing was told"
        ask(web, EMPTY, family, Refused())
        listener.join(0.5)
    event = json.loads(heard[0].stdout.splitlines()[0])
    client = web.pods("client")[web.pod("client").partition("/")[2]]
    assert (event["verdict"], event["reason"]) == ("reject", "NO_ENDPOINTS")
    assert event["service"].partition(":")[0] == name
    assert event["source"] in client.addresses
    assert event["destination"] == cluster_ip(EMPTY, family)
    assert b"NO_ENDPOINTS" in file.read_bytes()
    drops = [one for one in told(web, "services", name)["services"] if one["drops"]]
    assert {drop["reason"] for one in drops for drop in one["drops"]} == {"NO_ENDPOINTS"}

"""Where the XDP program goes by each mode, and what is said where it cannot."""

from dataclasses import replace
from typing import Any

import pytest

from ebpf_lb.agent.config.parsers import XDP_MODES
from ebpf_lb.agent.inbox import NetworkChanged
from ebpf_lb.agent.metrics.parts import XdpCollector
from ebpf_lb.agent.network.roles import Address, Facts, Link
from ebpf_lb.agent.network.xdp import XdpUplinks
from ebpf_lb.model.values import Family, parse_address
from tests.unit.agent.fakes import ETH0, VETH4, Agent, Log, Writer, Xdp, facts

# beside eth0, the machine's own
WAN = Link(7, "wan0", "", 0, False, mtu=1500)
WIRE = Link(8, "wire0", "veth", 0, True, mtu=1500)
TUNNEL = Link(9, "flannel.1", "vxlan", 0, False, mtu=1450)
OF_WAN = Address(7, parse_address("198.51.100.1"), 0)
OF_WIRE = Address(8, parse_address("203.0.113.1"), 0)
ALL = facts(VETH4, WAN, WIRE, TUNNEL, more=(OF_WAN, OF_WIRE))

TC, NATIVE, GENERIC = {"mode": "tc"}, {"mode": "native"}, {"mode": "generic"}


def node(mode: str, xdp: Xdp | None = None, network: Facts = ALL, **more: Any) -> Agent:
    return Agent(xdp=xdp, network=network, xdp_mode=mode, pod_interfaces=("veth*",), **more)


def interfaces(agent: Agent) -> dict[str, dict[str, str]]:
    """Without reasons."""
    shown = agent.loop.status()["xdp"]["interfaces"]
    return {name: {"mode": one["mode"]} for name, one in shown.items()}


def xdp_calls(agent: Agent) -> list[str]:
    found = [call for call in agent.writer.calls if call.startswith("xdp")]
    agent.writer.calls.clear()
    return found


@pytest.mark.parametrize(
    ("mode", "expected"),
    [
        ("off", {}),
        ("native", {"eth0": NATIVE, "wan0": NATIVE, "wire0": NATIVE}),
        ("generic", {"eth0": GENERIC, "wan0": GENERIC, "wire0": GENERIC}),
        # what a veth's other end does with what XDP sends back cannot be seen from here
        ("auto", {"eth0": NATIVE, "wan0": NATIVE, "wire0": TC}),
    ],
)
def test_uplinks_only_and_neither_pods_nor_tunnels(
    mode: str, expected: dict[str, dict[str, str]]
) -> None:
    agent = node(mode)
    assert interfaces(agent) == expected
    assert agent.loop.status()["xdp"]["mode"] == mode
    on = {"eth0": 2, "wan0": 7, "wire0": 8}
    assert agent.xdp.on == {on[name]: one["mode"] for name, one in expected.items() if one != TC}
    assert {name for name, _ in expected.items()} <= set(agent.loop.status()["uplinks"])


def test_xdp_comes_after_tc() -> None:
    calls = node("native").writer.calls
    assert calls.index("attach uplink 7") < calls.index("xdp native 7")


@pytest.mark.parametrize("mode", ["native", "auto"])
def test_a_driver_without_it_leaves_all_to_tc(mode: str) -> None:
    xdp = Xdp()
    xdp.incapable = {7}
    agent = node(mode, xdp)
    status = agent.loop.status()
    assert status["xdp"]["interfaces"]["eth0"] == {"mode": "native"}
    assert status["xdp"]["interfaces"]["wan0"] == {
        "mode": "tc", "reason": "No native XDP on 7.",
    }  # fmt: skip
    # what was asked for is missed; what was only offered is not
    assert status["interfaceProblems"] == (["No native XDP on 7."] if mode == "native" else [])
    levels = {fields["interface"]: level for level, event, fields in agent.log.lines
              if event == "no XDP here, TC does it all"}  # fmt: skip
    assert levels["wan0"] == ("warning" if mode == "native" else "info")
    assert "wan0" in status["uplinks"]


def test_a_foreign_program_is_said_once_and_xdp_comes_when_it_goes() -> None:
    xdp = Xdp()
    xdp.foreign = {7}
    theirs = replace(WAN, xdp=(4711,))
    agent = node("native", xdp, facts(theirs, more=(OF_WAN,)))
    for mtu in (1400, 1300):  # tried again whenever something changes
        agent.tell(NetworkChanged(facts(replace(theirs, mtu=mtu), more=(OF_WAN,))))
    assert len(agent.log.of("no XDP here, TC does it all")) == 1
    assert interfaces(agent)["wan0"] == TC
    xdp.foreign.clear()
    agent.second(10)
    assert interfaces(agent)["wan0"] == TC, "it is not to be tried all the time"
    agent.tell(NetworkChanged(facts(WAN, more=(OF_WAN,))))
    assert interfaces(agent)["wan0"] == NATIVE
    assert agent.loop.status()["interfaceProblems"] == []


def test_one_that_somebody_took_off_comes_back() -> None:
    agent = node("native", network=facts(replace(WAN, xdp=(1,)), more=(OF_WAN,)))
    xdp_calls(agent)
    agent.xdp.on.pop(7)
    agent.tell(NetworkChanged(facts(WAN, more=(OF_WAN,))))
    assert xdp_calls(agent) == ["xdp native 7"]
    [line] = agent.log.of("our XDP program had been removed and is attached again")
    assert line == {"interface": "wan0"}
    assert agent.loop._parts.xdp.restored == 1


def test_our_own_doing_is_no_reason_for_more() -> None:
    agent = node("native")
    agent.writer.calls.clear()
    seen = {**ALL.links, 7: replace(WAN, xdp=(1,)), 2: replace(ETH0, xdp=(1,))}
    agent.tell(NetworkChanged(Facts(seen, ALL.addresses, ALL.default_routes)))
    assert not [call for call in agent.writer.calls if "tach" in call or "xdp" in call]
    assert agent.loop._parts.xdp.restored == 0


def test_uplinks_come_change_and_go() -> None:
    agent = node("native", network=facts(VETH4))
    agent.tell(NetworkChanged(facts(VETH4, WAN, more=(OF_WAN,))))
    assert interfaces(agent) == {"eth0": NATIVE, "wan0": NATIVE}
    agent.tell(NetworkChanged(facts(VETH4, WAN)))  # no address: no uplink
    assert agent.xdp.on == {2: "native"}
    assert interfaces(agent) == {"eth0": NATIVE}
    # a pod's wire that becomes the way out, and is one again
    routed = facts(replace(VETH4, master=0))
    uplink = Facts(routed.links, routed.addresses, routed.default_routes | {(Family.IPV6, 4)})
    agent.tell(NetworkChanged(uplink))
    assert agent.xdp.on == {2: "native", 4: "native"}
    agent.tell(NetworkChanged(routed))
    assert agent.xdp.on == {2: "native"}


def test_one_that_goes_while_it_is_looked_at() -> None:
    xdp = Xdp()
    xdp.gone = {7}
    agent = node("native", xdp)
    assert "wan0" not in interfaces(agent)
    assert agent.loop.status()["interfaceProblems"] == []


@pytest.mark.parametrize("mode", XDP_MODES)
def test_what_an_earlier_run_left(mode: str) -> None:
    """By another mode, on what is not an uplink now, on what is not ours to look after at all."""
    xdp = Xdp()
    xdp.on = {2: "generic", 4: "native", 8: "native", 77: "native"}
    agent = node(mode, xdp)
    expected = {
        "off": {},
        "generic": {2: "generic", 7: "generic", 8: "generic"},
        "native": {2: "native", 7: "native", 8: "native"},
        "auto": {2: "native", 7: "native"},
    }
    assert agent.xdp.on == expected[mode]


def test_programs_of_a_new_build_wait_for_its_maps() -> None:
    xdp = Xdp()
    xdp.on = {2: "generic"}  # an older build's, which goes on serving
    agent = Agent(Writer(Family.IPV4), late=True, xdp=xdp, network=ALL, xdp_mode="native")
    assert agent.xdp.on == {2: "generic"}


def test_the_metric_counts_uplinks_by_mode() -> None:
    xdp = Xdp()
    xdp.incapable = {7}
    agent = node("native", xdp)
    uplinks = XdpUplinks(xdp, "off", Log())
    for source, expected in (
        (agent.loop._parts.xdp, {"native": 2, "generic": 0, "tc": 1}),
        (uplinks, {"native": 0, "generic": 0, "tc": 0}),
    ):
        [metric] = XdpCollector(source).collect()
        assert metric.name == "ebpf_lb_xdp_interfaces"
        assert {one.labels["mode"]: one.value for one in metric.samples} == expected


@pytest.mark.parametrize("mode", ["native", "generic", "auto", "off"])
def test_the_port_of_a_bridge_has_none_and_is_told(mode: str) -> None:
    """A host of virtual machines: eth0 becomes a port of the bridge that has the address."""
    agent = node(mode)
    bridge = Link(10, "br0", "bridge", 0, False)
    port = replace(ETH0, master=10)
    network = Facts(
        {**ALL.links, 10: bridge, 2: port},
        tuple(replace(one, index=10) if one.index == 2 else one for one in ALL.addresses),
        frozenset({(Family.IPV4, 10)}),
    )
    agent.writer.calls.clear()
    agent.tell(NetworkChanged(network))
    assert "eth0" in agent.loop.status()["uplinks"] and 2 not in agent.xdp.on
    status = agent.loop.status()
    if mode == "off":
        assert "eth0" not in status["xdp"]["interfaces"]
        return
    assert status["xdp"]["interfaces"]["eth0"]["mode"] == "tc"
    reason = status["xdp"]["interfaces"]["eth0"]["reason"]
    assert reason.startswith("eth0 is a port of the bridge ")
    assert (reason in status["interfaceProblems"]) == (mode != "auto")
    (line,) = agent.log.of("no XDP here, TC does it all")[-1:]
    assert line["interface"] == "eth0" and line["reason"] == reason
    agent.tell(NetworkChanged(ALL))
    assert agent.xdp.on[2] == ("generic" if mode == "generic" else "native")

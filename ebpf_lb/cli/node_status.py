"""How a node is: what the kernel holds, what the agent says, and what follows from both."""

import errno
import http.client
import json
import os
import socket
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ebpf_lb.datapath.layout import load
from ebpf_lb.datapath.pins import Build, Pins
from ebpf_lb.datapath.reader import View, open_views
from ebpf_lb.datapath.reader.drops import Ending, endings
from ebpf_lb.datapath.reader.node import interfaces
from ebpf_lb.datapath.reader.occupancy import Level, levels
from ebpf_lb.model.values import Family

FULL = 0.9
"""A map that is this full is told as a problem."""

_NO_ROOM = ("FLOW_TABLE_FULL", "SNAT_PORTS", "NO_SNAT_SOURCE")
_ANSWER_WITHIN_S = 3.0
_LONG_S = 300.0  # without news from the API server; its bookmarks come every minute
# The agent's problems by their key in /status, and whether they affect Services.
_PROBLEMS = {
    "apiServerProblem": True,
    "notProgrammed": True,
    "hookProblems": True,
    "interfaceProblems": True,
    "staleSocketProblem": True,
    "mapProblems": True,
    "serviceNetworkProblems": True,
    "healthCheckProblems": True,
    "conflicts": False,
}


@dataclass(frozen=True, slots=True)
class Hooks:
    """An interface and our programs on it, as the kernel has them. `way`: XDP's mode, or TC."""

    name: str
    programs: tuple[str, ...]
    way: str


@dataclass(slots=True)
class Agent:
    """`silent_s`: since its last sign of life; None where that is not known. `status`: what it says
    of itself, None if it does not answer."""

    runs: bool
    silent_s: float | None
    status: dict[str, Any] | None = None
    last_sync_s: float | None = None


@dataclass(slots=True)
class NodeStatus:
    build: str
    services: int
    agent: Agent
    hooks: list[Hooks]
    socket_hooks: list[str]
    levels: dict[str, list[Level]]
    drops: list[tuple[Ending | dict[str, Any], int]]
    problems: list[str] = field(default_factory=list)
    remarks: list[str] = field(default_factory=list)

    @property
    def well(self) -> bool:
        return not self.problems


def look(bpffs: Path, address: tuple[str, int]) -> NodeStatus:
    """NothingPinned where no data path is loaded; OSError EPERM without the rights."""
    pins = Pins(bpffs)
    views = open_views(bpffs, list(Family))
    agent = _agent(pins, address)
    status = agent.status or {}
    recent: Any = status.get("dropsLastMinute")
    found = NodeStatus(
        build=pins.current.path.readlink().name,
        services=len({name for view in views for name in view.names.values()}),
        agent=agent,
        hooks=_hooks(views, pins.current, status),
        socket_hooks=sorted({path.name.partition("-")[2] for path in _entries(pins.links)}),
        levels={view.family.directory: levels(view) for view in views},
        drops=[(row, row["packets"]) for row in recent]
        if recent is not None
        else sorted(endings(views).items(), key=lambda one: -one[1]),
    )
    _judge(found)
    return found


def _agent(pins: Pins, address: tuple[str, int]) -> Agent:
    silent_s = None
    with suppress(OSError):
        silent_s = max(0.0, time.time() - pins.root.stat().st_mtime)
    agent = Agent(agent_runs(pins.root), silent_s)
    if agent.runs:
        agent.status = _ask(address)
        synced = _metric(address, "kubeproxy_sync_proxy_rules_last_timestamp_seconds")
        agent.last_sync_s = time.time() - synced if synced else None
    return agent


def silence_s(root: Path) -> float | None:
    """For how long no agent has run on this node; None while one does."""
    if agent_runs(root):
        return None
    try:
        return max(0.0, time.time() - root.stat().st_mtime)
    except OSError:
        return 0.0


def agent_runs(root: Path) -> bool:
    """An agent has a name that goes with its process (agent/host/process.py)."""
    probe = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC)
    with probe:
        try:
            probe.connect(f"\0ebpf-lb-agent:{os.path.realpath(root)}")
        except OSError as error:
            return error.errno not in (errno.ECONNREFUSED, errno.ENOENT)
    return True


def get(address: tuple[str, int], path: str) -> bytes | None:
    """A page of the agent's; None if it does not answer."""
    connection = http.client.HTTPConnection(*address, timeout=_ANSWER_WITHIN_S)
    try:
        connection.request("GET", path)
        answer = connection.getresponse()
        return answer.read() if answer.status == http.client.OK else None
    except (OSError, http.client.HTTPException):
        return None
    finally:
        connection.close()


def _ask(address: tuple[str, int], path: str = "/status") -> dict[str, Any] | None:
    body = get(address, path)
    try:
        found = json.loads(body) if body is not None else None
    except ValueError:
        return None
    return found if isinstance(found, dict) else None


@dataclass(frozen=True, slots=True)
class Ways:
    """What goes past the host's stack. `host_routing`: all that is translated where it enters;
    `xdp`: what enters by one of these interfaces and leaves for another node."""

    host_routing: bool = False
    xdp: frozenset[str] = frozenset()


def ways(address: tuple[str, int]) -> Ways:
    """As the agent has them in force; the stack's where it does not answer."""
    config = (_ask(address, "/configz") or {}).get("ebpf-lb.io") or {}
    modes = xdp_modes(_ask(address) or {})
    served = frozenset(name for name, mode in modes.items() if mode not in ("off", "tc"))
    return Ways(config.get("hostRouting") == "bpf", served)


def xdp_modes(status: Mapping[str, Any]) -> dict[str, str]:
    """Of the interfaces of which the agent's /status says one."""
    interfaces = (status.get("xdp") or {}).get("interfaces") or {}
    return {name: str(one.get("mode") or "tc") for name, one in interfaces.items()}


def _metric(address: tuple[str, int], name: str) -> float | None:
    body = get(address, "/metrics") or b""
    for line in body.decode(errors="replace").splitlines():
        if line.startswith((f"{name} ", f"{name}{{")):
            return float(line.rpartition(" ")[2])
    return None


def _hooks(views: list[View], build: Build, status: dict[str, Any]) -> list[Hooks]:
    from pyroute2 import IPRoute

    from ebpf_lb.datapath.attach.listing import Listing

    with IPRoute() as ip:
        bridges = {link["index"] for link in ip.get_links(kind="bridge")}
    xdp = xdp_modes(status)
    found = []
    with Listing(build) as listing:
        for one in interfaces(views[0]):
            if one.name is None:
                continue
            programs = listing.programs(one.ifindex)
            if not programs and one.ifindex in bridges:
                continue  # its ports have them
            found.append(Hooks(one.name, tuple(programs), xdp.get(one.name, "tc")))
    return found


def _entries(folder: Path) -> list[Path]:
    return sorted(folder.iterdir()) if folder.exists() else []


def _judge(found: NodeStatus) -> None:
    agent, problems = found.agent, found.problems
    if not agent.runs:
        long = "" if agent.silent_s is None else f" for {duration(agent.silent_s)}"
        problems.append(
            f"No agent has run{long}: what is loaded goes on, but follows no change. Start it."
        )
    elif agent.status is None:
        problems.append(
            "The agent runs but does not answer: see its log, or give its metricsBindAddress by "
            "--agent."
        )
    elif not agent.status.get("complete"):
        missing = ", ".join(agent.status.get("waitingFor", [])) or "its first sync"
        problems.append(f"The agent still waits for {missing}.")
    for key, harmful in _PROBLEMS.items():
        said = (agent.status or {}).get(key) or []
        for sentence in [said] if isinstance(said, str) else said:
            (problems if harmful else found.remarks).append(sentence)
    for name in (one.name for one in found.hooks if not one.programs):
        problems.append(f"None of our programs is on {name}, though it has been served.")
    for family, maps in found.levels.items():
        for level in maps:
            if level.share >= FULL and not level.harmless:
                problems.append(
                    f"The map {level.map} of {family} is {level.share:.0%} full "
                    f"({level.used:,} of {level.room:,}): raise dataPath's key for it."
                )
    _no_room(found)


def _no_room(found: NodeStatus) -> None:
    """What a table had no room for in the last minute."""
    if "dropsLastMinute" not in (found.agent.status or {}):
        return
    known = {one.name: one for one in load(Family.IPV4).reasons.values()}
    packets: dict[str, int] = {}
    for ending, times in found.drops:
        if isinstance(ending, dict) and ending.get("reason") in _NO_ROOM:
            packets[ending["reason"]] = packets.get(ending["reason"], 0) + times
    for name, times in packets.items():
        reason = known[name]
        remedy = f" What to do: {reason.remedy}." if reason.remedy else ""
        found.problems.append(
            f"{name}: {times:,} packets in the last minute: {reason.sentence}.{remedy}"
        )


def duration(seconds: float) -> str:
    """12 s, 3 min, 5 h, 2 d."""
    for unit, length in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= 2 * length:
            return f"{seconds / length:.0f} {unit}"
    return f"{seconds:.0f} s"

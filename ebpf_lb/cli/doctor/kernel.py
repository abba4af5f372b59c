"""What the kernel can do, asked by trying, and what is at its hooks."""

import ctypes
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from ebpf_lb.cli.doctor.finding import Finding, bad, good, remark
from ebpf_lb.errors import UserError

if TYPE_CHECKING:
    from ebpf_lb.agent.config import Config
    from ebpf_lb.datapath.attach.tc import TrafficControl

_TRIED = {
    "HASH": (4, 4, 0),
    "ARRAY": (4, 8, 0),
    "PERCPU_ARRAY": (4, 8, 0),
    "LRU_HASH": (4, 4, 0),
    "LPM_TRIE": (8, 4, 1),  # BPF_F_NO_PREALLOC
    "PROG_ARRAY": (4, 4, 0),
}
_TIME_ERROR = 5  # of adjtimex: the clock is not synchronised
_NFT_WITHIN_S = 10
_KUBE_PROXYS = ("kube-proxy", "KUBE-SERVICES")


def bpf() -> Iterator[Finding]:
    from ebpf_lb.datapath.attach import tcx
    from ebpf_lb.datapath.libbpf import Map, MapType
    from ebpf_lb.datapath.libbpf.object import library

    try:
        library()
    except UserError as error:
        yield bad("libbpf", str(error).rstrip("."), "apt-get install libbpf1")
        return
    refused = []
    for name, (key, value, flags) in _TRIED.items():
        try:
            Map.create(MapType[name], key, value, 1, flags, "doctor").close()
        except OSError as error:
            refused.append(f"{name.lower()} ({os.strerror(error.errno or 0).lower()})")
    if refused:
        yield bad(
            "bpf",
            f"the kernel {os.uname().release} makes no maps of kind {', '.join(refused)}",
            "Linux 6.1 or later, and root or CAP_BPF",
        )
        return
    yield good("bpf", f"the kernel {os.uname().release} makes all kinds of maps")
    if tcx.supported():
        yield good("tcx", "programs are put on interfaces by tcx, ahead of all TC filters")
    else:
        yield remark("tcx", "the kernel has no tcx (Linux 6.6): programs are put on by clsact")


def places(config: "Config") -> Iterator[Finding]:
    """Where programs and maps are pinned, and the node's own processes are served."""
    from ebpf_lb.agent.host.bpffs import filesystem

    root = Path(os.path.realpath(config.bpffs))
    if filesystem(root, Path("/proc/self/mountinfo")) == "bpf":
        yield good("bpffs", f"{config.bpffs} lies on a bpffs")
    else:
        yield remark(
            "bpffs",
            f"no bpffs is mounted for {config.bpffs}: the agent mounts one, which goes with its "
            "container if the mount does not reach the host",
            "mount -t bpf bpf /sys/fs/bpf on the host, or mountPropagation: Bidirectional",
        )
    if config.cgroup is None:
        yield remark(
            "cgroup",
            "no cgroup version 2: the node's own processes are served packet by packet, and not "
            "by NodePorts on localhost",
            "mount -t cgroup2 none /sys/fs/cgroup/unified, or --cgroup",
        )
    elif (config.cgroup / "cgroup.controllers").exists():
        yield good("cgroup", f"{config.cgroup} is cgroup version 2")
    else:
        yield bad("cgroup", f"{config.cgroup} is not of cgroup version 2", "--cgroup")


def interfaces(config: "Config") -> Iterator[Finding]:
    """Which ones are served, and as what."""
    from ebpf_lb.agent.network import here
    from ebpf_lb.agent.network.interfaces import NodeNetwork
    from ebpf_lb.agent.network.roles import Role
    from ebpf_lb.datapath.attach.tc import TrafficControl
    from ebpf_lb.model.node import Node

    _, view = here.look(
        config, Node(config.node_name), NodeNetwork().facts, frozenset(), known=False
    )
    names = {
        role: sorted(one.name for one in view.interfaces.values() if one.role is role)
        for role in Role
    }
    if names[Role.UPLINK]:
        yield good(
            "uplinks",
            f"clients outside come by {_few(names[Role.UPLINK])}: a default route, an address "
            "towards others or a tunnel is there",
        )
    else:
        yield bad("uplinks", "no interface leads to clients outside", "--uplink-interfaces")
    pods = names[Role.POD]
    yield good("pods", f"pods' interfaces: {_few(pods) or 'none yet'}")
    for sentence in view.unserved:
        yield remark("interfaces", sentence, "ignoredInterfaces, if it is not to be served")
    with TrafficControl() as control:
        for one in view.interfaces.values():
            yield from _others(control, one.index, one.name)


def _others(control: "TrafficControl", index: int, name: str) -> Iterator[Finding]:
    """Who else is in an interface's hooks."""
    from ebpf_lb.datapath.libbpf import InterfaceHook, Program, programs_at

    found = [f"{one.kind} {one.name}".strip() for one in control.filters(index) if not one.ours]
    ours = ("pod_", "uplink_", "loopback_", "l3_")
    for hook in InterfaceHook:
        try:
            for number in programs_at(index, hook):
                try:
                    with Program.by_id(number) as program:
                        called = program.info().name
                except PermissionError:
                    continue  # its name takes CAP_SYS_ADMIN, and without it all may be ours
                if not called.startswith(ours):
                    found.append(f"tcx {called}")
        except OSError:
            continue
    if found:
        yield remark(
            "hooks",
            f"{name} has programs of others: {_few(found)}; what ends a packet's way before ours "
            "is not served",
        )


def rules() -> Iterator[Finding]:
    """kube-proxy's, in the kernel's packet filter."""
    tool = shutil.which("nft")
    if tool is None:
        return
    try:
        done = subprocess.run(
            [tool, "list", "chains"],
            capture_output=True,
            text=True,
            timeout=_NFT_WITHIN_S,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return
    if any(word in done.stdout for word in _KUBE_PROXYS):
        yield remark(
            "rules",
            "kube-proxy's rules are in the packet filter: they answer what ebpf-lb does not serve, "
            "and connections that they have translated live by them",
            "when these have ended: kube-proxy --cleanup on this node",
        )
    else:
        yield good("rules", "no rules of kube-proxy's in the packet filter")


def clock() -> Iterator[Finding]:
    # struct timex, of which only the answer counts; modes 0: nothing is set
    if ctypes.CDLL(None).adjtimex(ctypes.create_string_buffer(256)) == _TIME_ERROR:
        yield remark(
            "clock",
            "the clock is not synchronised: certificates and tokens may seem to have ended",
            "timedatectl set-ntp true, or another NTP client",
        )
    else:
        yield good("clock", "the clock is synchronised")


def state(config: "Config") -> Iterator[Finding]:
    """Whether ebpf-lb is there."""
    from ebpf_lb.cli.node_status import agent_runs
    from ebpf_lb.datapath.pins import Pins

    loaded, runs = Pins(config.bpffs).current.path.exists(), agent_runs(config.bpffs)
    if runs and loaded:
        yield good("ebpf-lb", "an agent runs, and programs are loaded: `ebpf-lb status` says more")
    elif runs:
        yield remark("ebpf-lb", "an agent runs, and has not loaded its programs yet")
    elif loaded:
        yield bad(
            "ebpf-lb",
            "programs are loaded and go on, but no agent runs: they follow no change",
            "start the agent, or `ebpf-lb cleanup`",
        )
    else:
        yield good("ebpf-lb", "it is not on this node yet, or not any more")


def _few(names: list[str]) -> str:
    shown = names[:5]
    return ", ".join(shown) + (f" and {len(names) - 5} more" if len(names) > 5 else "")

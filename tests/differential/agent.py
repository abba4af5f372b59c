"""The node with ebpf-lb: programs, writers and attachments as the agent has them, but no loop."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from ebpf_lb.agent.config.keys import POD_INTERFACES
from ebpf_lb.agent.network.attachments import Attachments, SourceNumbers
from ebpf_lb.agent.network.interfaces import NodeNetwork
from ebpf_lb.agent.network.roles import Patterns, view
from ebpf_lb.agent.network.xdp import XdpUplinks
from ebpf_lb.agent.programming.programmer import Programmer
from ebpf_lb.agent.upkeep.stale_sockets import StaleSockets, translated_sockets
from ebpf_lb.datapath.attach.cgroup import attach_cgroup
from ebpf_lb.datapath.attach.hooks import HookControl
from ebpf_lb.datapath.attach.xdp import XdpControl
from ebpf_lb.datapath.pins import Pins
from ebpf_lb.datapath.settings import Settings
from ebpf_lb.datapath.sock_diag import SockDiag
from ebpf_lb.datapath.sweep import FlowSweep
from ebpf_lb.lab import namespaces
from ebpf_lb.model.key import ObjectKey
from ebpf_lb.model.values import Family, parse_address, parse_network
from ebpf_lb.plan.forwarding import Forwarding
from tests.datapath.kernel import Kernel, loaded
from tests.datapath.wires import netns_cookie
from tests.differential.cluster import State
from tests.differential.wire import WORLD, Wire

SETTINGS = Settings(flows=1024, services=1024, backends=4096, affinity=1024, fragments=64)


STACK, PAST_STACK, BY_XDP = "by the stack", "past the stack", "by XDP"
WAYS: dict[str, tuple[dict[str, bool], str]] = {
    STACK: ({}, "off"),
    PAST_STACK: ({"host_routing": True}, "off"),
    BY_XDP: ({"xdp": True, "xdp_generic": True}, "generic"),
}
"""How packets get through the node: settings of the programs, and the mode of XDP."""


class Log:
    """What there is to say is not news here; what goes wrong is."""

    def debug(self, event: str, **about: Any) -> None: ...

    def info(self, event: str, **about: Any) -> None: ...

    def warning(self, event: str, **about: Any) -> None:
        raise AssertionError(f"{event}: {about}")

    error = warning


class Agent:
    """One proxy of a node."""

    def __init__(self, wire: Wire, root: Path, xdp_mode: str) -> None:
        self.kernels = {family: Kernel(root, family) for family in Family}
        self._now = 1000.0
        self._family = Family.IPV4
        self._keys: frozenset[ObjectKey] = frozenset()
        with namespaces.entered(wire.node.path):
            network = NodeNetwork()
            facts = network.facts
            network.close()
            hooks = HookControl(Pins(root))
            for role in ("pod", "uplink", "loopback"):
                hooks.use(Pins(root).current, role)
            xdp = XdpUplinks(_xdp(root, xdp_mode), xdp_mode, Log())
        known = tuple(parse_address(WORLD[family].node) for family in Family)
        networks = tuple(parse_network(WORLD[family].cluster_network) for family in Family)
        attachments_view = view(facts, Patterns(POD_INTERFACES), known, networks)
        writers = {family: kernel.writer for family, kernel in self.kernels.items()}
        for family, writer in writers.items():
            writer.set_service_networks([parse_network(WORLD[family].service_network)])
        self._programmer = Programmer(writers, lambda: self._now, Log())
        numbers = {family: SourceNumbers({}, lambda: self._now, 0) for family in writers}
        attachments = Attachments(hooks, xdp, writers, numbers, Log())
        with namespaces.entered(wire.node.path):
            attachments.begin(attachments_view)
        assert not attachments.failed, attachments.failed
        build = Pins(root).current
        attach_cgroup(build, root / "links-of-sockets", wire.group)
        for writer in writers.values():
            writer.set_config(netns_cookie(wire.node), False, 1000)
        self._node = wire.node
        self._stale_sockets = StaleSockets(
            writers, lambda family: translated_sockets(build, family), SockDiag, Log()
        )
        for kernel in self.kernels.values():
            assert not kernel.counters()

    def begin(self, family: Family) -> None:
        self._family = family
        self._program(())
        self.kernels[family].forget_flows()

    def program(self, state: State, plan: Sequence[Forwarding]) -> None:
        self._program(plan)
        FlowSweep(self.kernels[self._family].build, self._family).end_stale()
        with namespaces.entered(self._node.path):
            self._stale_sockets.check()
        # what is looked at once in a tick is looked at by the next packet
        self.kernels[self._family].age(0.1)

    def _program(self, plan: Sequence[Forwarding]) -> None:
        by_key: dict[ObjectKey, list[Forwarding]] = {}
        for one in plan:
            by_key.setdefault(ObjectKey(one.name.namespace, one.name.name), []).append(one)
        for key in self._keys | by_key.keys():
            self._programmer.program(key, by_key.get(key, ()))
        self._keys = frozenset(by_key)
        self._programmer.remove_unwanted()
        self._now += 2
        self._programmer.housekeeping()


def _xdp(root: Path, mode: str) -> XdpControl:
    control = XdpControl(Pins(root))
    if mode != "off":
        control.use(Pins(root).current)
    return control


@contextmanager
def agent(wire: Wire, name: str, way: str = STACK) -> Iterator[Agent]:
    """`way`: one of WAYS."""
    changes, xdp_mode = WAYS[way]
    with loaded(f"peer-{name}", replace(SETTINGS, **changes)) as root:
        yield Agent(wire, root, xdp_mode)

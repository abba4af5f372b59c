"""Builds what looks after interfaces: programs on them, XDP, addresses to masquerade with."""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from ebpf_lb.agent.config import Config
from ebpf_lb.agent.network.attachments import Attachments, InterfaceTables, SourceNumbers
from ebpf_lb.agent.network.interfaces import NodeNetwork
from ebpf_lb.agent.network.layer_3 import OnDemand, wanted
from ebpf_lb.agent.network.roles import LAYER_3_PROGRAMS, Role
from ebpf_lb.agent.network.xdp import XdpUplinks
from ebpf_lb.datapath.accept_local import SETTING, accept_local
from ebpf_lb.datapath.attach.hooks import HookControl
from ebpf_lb.datapath.attach.xdp import XdpControl
from ebpf_lb.datapath.loader import Loaded, ensure_layer_3
from ebpf_lb.datapath.pins import Build, Pins
from ebpf_lb.datapath.reader import View, node
from ebpf_lb.datapath.writer import NODE_SOURCE_ID
from ebpf_lb.model.values import Family


@dataclass(frozen=True, slots=True)
class Interfaces:
    """`preferred`: the node's addresses of last time, at most one for each family."""

    network: NodeNetwork
    attachments: Attachments
    xdp: XdpUplinks
    preferred: tuple[bytes, ...]


def build(
    config: Config,
    loaded: Loaded,
    writers: Mapping[Family, InterfaceTables],
    log: Any,
    hold_pins: Callable[[], None],
) -> Interfaces:
    """`hold_pins`: called when more programs are pinned than before."""
    network = NodeNetwork()
    hooks = _hooks(config, loaded, log, hold_pins)
    if wanted(network.facts):
        hooks.prepare()
    xdp_control = XdpControl(Pins(config.bpffs))
    if config.settings.xdp:
        xdp_control.use(loaded.build)
    xdp = XdpUplinks(xdp_control, config.xdp, log)
    sources = _snat_sources(loaded.build)
    numbers = {
        family: SourceNumbers(held, time.monotonic, config.settings.longest_timeout_s)
        for family, held in sources.items()
    }
    _accept_local(config, log)
    preferred = tuple(held[NODE_SOURCE_ID] for held in sources.values() if NODE_SOURCE_ID in held)
    attachments = Attachments(hooks, xdp, writers, numbers, log)
    return Interfaces(network, attachments, xdp, preferred)


def _hooks(config: Config, loaded: Loaded, log: Any, hold_pins: Callable[[], None]) -> OnDemand:
    control = HookControl(Pins(config.bpffs), config.filter_preference, config.tc_hooks)
    for role in Role:
        if role.has_programs:
            control.use(loaded.build, role.value)

    def load_layer_3() -> None:
        compiled = ensure_layer_3(loaded.build, config.settings, anew=config.compile)
        hold_pins()
        log.info("loaded programs for devices without Ethernet header", compiled=compiled)

    return OnDemand(control, load_layer_3, lambda: control.use(loaded.build, LAYER_3_PROGRAMS))


def _snat_sources(build: Build) -> dict[Family, dict[int, bytes]]:
    """The node's addresses that the kernel masquerades with, by number."""
    sources = {}
    for family in Family:
        sources[family] = {one.id: one.address for one in node.sources(View(build, family))}
    return sources


def _accept_local(config: Config, log: Any) -> None:
    try:
        accept_local(Pins(config.bpffs))
    except OSError as error:
        log.warning(
            "past the socket hooks, the node hears nothing of Services on addresses of its own",
            setting=str(SETTING),
            error=error.strerror,
        )

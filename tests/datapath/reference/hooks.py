"""The hooks, what is observed at them, and what is ruled about it."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

from tests.datapath.judge import End
from tests.datapath.reference.flows import Flow

POD_IN, POD_OUT = "pod_ingress", "pod_egress"
UPLINK_IN, UPLINK_OUT = "uplink_ingress", "uplink_egress"
LOOPBACK_OUT = "loopback_egress"
HOOKS = (POD_IN, POD_OUT, UPLINK_IN, UPLINK_OUT, LOOPBACK_OUT)
INGRESS = (POD_IN, UPLINK_IN)
FROM_NODE = (UPLINK_OUT, LOOPBACK_OUT)  # where its own processes ask


@dataclass(frozen=True)
class Observed:
    """What a program made of a packet. `between`: as the stack had it, where that sent it on."""

    verdict: int
    frame: bytes
    counted: Counter[str]
    between: bytes = b""


@dataclass(frozen=True)
class Ruling:
    """`fault`: what is wrong about it, or "". `fate`: what became of the packet. `flow`: the flow
    that it belongs to, in its new state; `fragment`: its ports are known from now on; `unseen`: the
    tuple of a flow that began, at `hook`, with a packet that was dropped."""

    fault: str
    fate: str
    flow: Flow | None = None
    fragment: bool = False
    unseen: tuple[int, End, End] | None = None
    hook: str = ""

"""What a flow's word says, by the headers that say it."""

from __future__ import annotations

from ebpf_lb.datapath import layout
from ebpf_lb.model.values import Family

_IPV4 = layout.load(Family.IPV4)
_OF, _STATES = _IPV4.defines, _IPV4.enum("flow_state")

(
    TENTATIVE,
    NEW,
    ANSWERED,
    REPEATED,
    ABORTED,
    ESTABLISHED,
    ORIGINAL_FIN,
    REPLY_FIN,
    CLOSING,
    RESET,
) = (
    _STATES[f"FLOW_{name}"]
    for name in (
        "TENTATIVE",
        "NEW",
        "ANSWERED",
        "REPEATED",
        "ABORTED",
        "ESTABLISHED",
        "ORIGINAL_FIN",
        "REPLY_FIN",
        "CLOSING",
        "RESET",
    )
)
PORTED, SIGNPOST = _OF["FLOW_PORTED"], _OF["FLOW_SIGNPOST"]
OF_XDP = _OF["FLOW_OF_XDP"]
TIME = _OF["FLOW_TIME_MASK"]
GENERATION = _OF["FLOW_GENERATION_MASK"] << _OF["FLOW_GENERATION_SHIFT"]


def state_of(word: int) -> int:
    """A number of enum flow_state, or what lies between two of them."""
    return word >> _OF["FLOW_STATE_SHIFT"] & _OF["FLOW_STATE_MASK"]


def in_state(word: int, state: int) -> int:
    """The same word with that state."""
    return word & ~(_OF["FLOW_STATE_MASK"] << _OF["FLOW_STATE_SHIFT"]) | (
        state << _OF["FLOW_STATE_SHIFT"]
    )


def time_of(word: int) -> int:
    """The tick of the flow's last packet."""
    return word & TIME


def earlier(word: int, ticks: int) -> int:
    """The same word, that packet having been so many ticks sooner."""
    return word & ~TIME | word - ticks & TIME


def generation_of(word: int) -> int:
    """How many tenants the entry has had, in so many bits."""
    return word >> _OF["FLOW_GENERATION_SHIFT"] & _OF["FLOW_GENERATION_MASK"]

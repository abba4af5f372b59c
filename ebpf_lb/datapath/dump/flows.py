"""Walks the connection table: large, usually nearly empty, and changing under our eyes."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from ebpf_lb.datapath.dump.view import View


@dataclass(frozen=True, slots=True)
class Flow:
    """An entry in use: where it is, its fields, and what its word says."""

    set: int
    slot: int
    entry: Any
    protocol: str | int
    state: str | int
    tick: int
    service_id: int
    flags: list[str]
    source_id: int


def flows(view: View) -> Iterator[Flow]:
    """All entries that are not free, by their place in the table."""
    entry = view.layout.struct("flow")
    word = _Word(view)
    for number, entries in view.used_elements("flows"):
        for slot, unpacked in enumerate(entry.iter_unpack(entries)):
            flow = word.read(unpacked, number, slot)
            if flow is not None:
                yield flow


class _Word:
    """Takes a flow's word apart, as bpf/connections/flow.h says."""

    def __init__(self, view: View) -> None:
        defines = view.layout.defines
        self._time_mask = defines["FLOW_TIME_MASK"]
        self._state = defines["FLOW_STATE_SHIFT"]
        self._protocol = defines["FLOW_PROTOCOL_SHIFT"]
        self._service = defines["FLOW_SERVICE_SHIFT"]
        self._source = defines["FLOW_SOURCE_SHIFT"]
        self._flags = {name: defines[f"FLOW_{name}"] for name in ("SNAT", "TURNED", "BRIDGED")}
        protocols = view.layout.enum("flow_protocol")
        self._protocols = {number: name.removeprefix("FLOW_") for name, number in protocols.items()}
        states = view.layout.enum("flow_state")
        self._states = {number: name.removeprefix("FLOW_") for name, number in states.items()}
        self._unused = {states["FLOW_FREE"], states["FLOW_CLAIMED"]}

    def read(self, entry: Any, number: int, slot: int) -> Flow | None:
        """None for an entry that is free or being written."""
        word = entry.word
        state = word >> self._state & 7
        if state in self._unused:
            return None
        protocol = word >> self._protocol & 3
        return Flow(
            number,
            slot,
            entry,
            self._protocols.get(protocol, protocol),
            self._states.get(state, state),
            word & self._time_mask,
            word >> self._service & 0xFFFF,
            [name for name, bit in self._flags.items() if word & bit],
            word >> self._source & 0xFF,
        )

"""Ends single connections: the program `end_flow` does it in one step (bpf/connections/end.h)."""

from typing import Self

from ebpf_lb.datapath.libbpf import Program
from ebpf_lb.datapath.reader import View
from ebpf_lb.datapath.reader.flows import Entry

_ETHERNET_HEADER = bytes(14)
_SHORTEST_PACKET = 64


class FlowEnd:
    """One family's program, for `with`. Calling it ends an entry."""

    def __init__(self, view: View) -> None:
        """FileNotFoundError if the build has no such program."""
        self._request = view.layout.struct("flow_end")
        self._program: Program = view.program("end_flow")

    def __call__(self, entry: Entry) -> bool:
        """False if the entry was another's by now, or gone."""
        request = self._request.pack(word=entry.raw, set=entry.set, slot=entry.slot)
        frame = (_ETHERNET_HEADER + request).ljust(_SHORTEST_PACKET, b"\0")
        return self._program.test_run(frame).retval == 1

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._program.close()

"""What the programs would decide on a new connection: asked of the kernel's own decide(), which
changes nothing (bpf/services/ask.h)."""

from enum import StrEnum
from typing import NamedTuple, Self

from ebpf_lb.datapath.layout import Reason
from ebpf_lb.datapath.libbpf import Program
from ebpf_lb.datapath.reader import View

_ETHERNET_HEADER = bytes(14)
_FRAME_BYTES = 256


class Client(StrEnum):
    """Who asks, as enum client_kind has it."""

    POD = "POD"
    NODE = "NODE"
    LOCALHOST = "LOCALHOST"
    REMOTE = "REMOTE"


class Decision(NamedTuple):
    """`action`: PASS, TRANSLATE, REJECT or DROP. The backend is None unless it is TRANSLATE."""

    action: str
    reason: Reason
    service_id: int
    backend_id: int
    backend: bytes | None
    backend_port: int
    masquerade: bool
    on_node: bool


class Question:
    """One family's program, for `with`."""

    def __init__(self, view: View) -> None:
        """FileNotFoundError if the build has no such program."""
        self._view = view
        self._question = view.layout.struct("question")
        self._verdict = view.layout.struct("verdict")
        self._actions = {number: name for name, number in view.short("action").items()}
        self._clients = view.short("client_kind")
        self._program: Program = view.program("what_if")

    def ask(
        self,
        client: Client,
        source: tuple[bytes, int],
        destination: tuple[bytes, int],
        protocol: int,
    ) -> Decision:
        question = self._question.pack(
            source=source[0],
            source_port=source[1],
            destination=destination[0],
            destination_port=destination[1],
            protocol=protocol,
            client=self._clients[client.value],
        )
        frame = (_ETHERNET_HEADER + question).ljust(_FRAME_BYTES, b"\0")
        done = self._program.test_run(frame)
        start = len(_ETHERNET_HEADER)
        found = self._verdict.unpack(done.data_out[start : start + self._verdict.size])
        action = self._actions[found.action]
        translates = action == "TRANSLATE"
        on_node = self._view.layout.enum("backend_flag")["BACKEND_ON_NODE"]
        return Decision(
            action,
            self._view.layout.reasons[found.reason],
            found.service_id,
            found.backend_id,
            found.address if translates else None,
            found.port if translates else 0,
            bool(found.masquerade),
            bool(found.backend_flags & on_node),
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._program.close()

"""How much is published of one Service, whatever it does."""

from datetime import UTC, datetime
from typing import Any

import pytest

from ebpf_lb.kube.client import ApiError
from ebpf_lb.kube.events import AGAIN_S, BURST, REFILL_S, SIMILAR, EventRecorder, _Warning
from ebpf_lb.model.key import ObjectKey
from tests.unit.agent.fakes import Clock, Log

WEB = ObjectKey("default", "web")


class Server:
    """Events as an API server keeps them."""

    def __init__(self) -> None:
        self.events: dict[str, dict[str, Any]] = {}
        self.requests = 0

    def create(self, path: str, document: Any) -> None:
        self.requests += 1
        name = f"{path}/{document['metadata']['name']}"
        if name in self.events:
            raise ApiError(409, "already exists")
        self.events[name] = dict(document)

    def patch(self, path: str, document: Any) -> None:
        self.requests += 1
        if path not in self.events:
            raise ApiError(404, "not found")
        self.events[path].update(document)


class Recorder:
    """A recorder that sends at once."""

    def __init__(self, server: Server, node: str = "node1") -> None:
        self.clock = Clock()
        self._recorder = EventRecorder(server, node, Log(), clock=self.clock)

    def warn(
        self, message: str, key: ObjectKey = WEB, *, everywhere: bool = False, reason: str = "Taken"
    ) -> None:
        when = datetime.fromtimestamp(1_800_000_000 + self.clock.now, UTC)
        self._recorder._send(_Warning(key, reason, message, everywhere, when))


@pytest.fixture
def server() -> Server:
    return Server()


@pytest.fixture
def recorder(server: Server) -> Recorder:
    return Recorder(server)


def test_the_same_again_is_counted_and_sent_now_and_then(
    server: Server, recorder: Recorder
) -> None:
    for _ in range(100):
        recorder.warn("port 80 is taken")
    [event] = server.events.values()
    assert (event["count"], server.requests) == (1, 1)
    recorder.clock.now += AGAIN_S
    recorder.warn("port 80 is taken")
    [event] = server.events.values()
    assert (event["count"], server.requests) == (101, 2)
    assert event["firstTimestamp"] < event["lastTimestamp"]


def test_one_that_the_server_has_forgotten_is_made_anew(server: Server, recorder: Recorder) -> None:
    recorder.warn("port 80 is taken")
    server.events.clear()
    recorder.clock.now += 2 * AGAIN_S
    recorder.warn("port 80 is taken")
    [event] = server.events.values()
    assert event["count"] == 2


def test_many_of_a_kind_become_one_that_says_so(server: Server, recorder: Recorder) -> None:
    for number in range(49):
        recorder.warn(f"10.0.0.{number}:80 is another's")
    messages = [event["message"] for event in server.events.values()]
    assert len(messages) == SIMILAR + 1
    assert messages[-1].startswith(f"There are more than {SIMILAR} of this kind")


def test_a_service_causes_so_many_requests_and_no_more(server: Server, recorder: Recorder) -> None:
    for number in range(10_000):
        recorder.clock.now += 0.001
        recorder.warn(f"message {number}", reason=f"Reason{number}")
    assert server.requests == BURST
    sent = sum(len(str(event)) for event in server.events.values())
    assert sent < 8192
    recorder.warn("another's is not held back", ObjectKey("default", "other"))
    assert server.requests == BURST + 1
    recorder.clock.now += REFILL_S
    recorder.warn("and this one later", reason="Later")
    assert server.requests == BURST + 2


def test_what_every_node_finds_is_one_event(server: Server) -> None:
    for node in ("node1", "node2", "node3"):
        recorder = Recorder(server, node)
        recorder.warn("10.0.0.1:80 is another's", everywhere=True)
        recorder.warn("no room on this node")
    assert len(server.events) == 1 + 3

"""Events about Services, as people see them in the lab's API server."""

import queue
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import structlog
from kubernetes import client

from ebpf_lb.kube.client import ApiError, connect
from ebpf_lb.kube.events import EventRecorder
from ebpf_lb.model.key import ObjectKey
from tests.api.lab_server import LabServer

WEB = ObjectKey("default", "web")


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LabServer]:
    made = LabServer(tmp_path_factory.mktemp("api"))
    yield made
    made.close()


def seen(server: LabServer, wanted: int) -> list[Any]:
    core = client.CoreV1Api(server.api_client())
    deadline = time.monotonic() + 60
    while True:
        items = [e for e in core.list_namespaced_event("default").items if e.reason == "Taken"]
        if len(items) >= wanted:
            return list(items)
        assert time.monotonic() < deadline, items
        time.sleep(0.05)


def test_an_event_names_the_service_the_node_and_the_reason(server: LabServer) -> None:
    recorder = EventRecorder(connect(server.kubeconfig), "node1", structlog.get_logger())
    recorder.warn(ObjectKey("nowhere", "web"), "Taken", "this namespace does not exist")
    recorder.warn(WEB, "Taken", "port 32100 is taken")
    recorder.warn(WEB, "Taken", "x" * 5000)
    recorder.warn(WEB, "Taken", "port 32100 is taken")
    first, second = sorted(seen(server, 2), key=lambda event: len(event.message))
    assert (first.type, first.message) == ("Warning", "port 32100 is taken")
    involved = first.involved_object
    assert (involved.kind, involved.namespace, involved.name) == ("Service", "default", "web")
    assert (first.source.component, first.source.host) == ("ebpf-lb", "node1")
    assert abs(first.last_timestamp.timestamp() - time.time()) < 30
    assert second.message == "x" * 512


def test_what_every_node_finds_is_one_event(server: LabServer) -> None:
    for node in ("node1", "node2", "node1"):  # the last one: an agent that was restarted
        recorder = EventRecorder(connect(server.kubeconfig), node, structlog.get_logger())
        recorder.warn(WEB, "Alike", "10.0.0.1:80 is another's", everywhere=True)
        recorder.warn(WEB, "Taken", "no room on this node")
    core = client.CoreV1Api(server.api_client())
    deadline = time.monotonic() + 60
    while True:
        items = core.list_namespaced_event("default").items
        found = sorted((e.reason, e.source.host) for e in items if "room" in e.message)
        alike = [e for e in items if e.reason == "Alike"]
        if len(found) == 2 and alike:
            break
        assert time.monotonic() < deadline, items
        time.sleep(0.05)
    assert found == [("Taken", "node1"), ("Taken", "node2")] and len(alike) == 1


def test_a_flood_is_cut_short_and_nobody_waits_for_the_server() -> None:
    sent: queue.Queue[str] = queue.Queue()
    flooded = threading.Event()

    class Away:
        def create(self, path: str, document: Any) -> None:
            sent.put(path)
            assert flooded.wait(60)
            raise ApiError(0, "the API server cannot be reached")

        patch = create

    class Quiet:
        def debug(self, event: str, **fields: str) -> None:
            pass

    recorder = EventRecorder(Away(), "node1", Quiet())
    for number in range(10_000):
        recorder.warn(ObjectKey("default", f"s{number}"), "Taken", "no room")
    assert sent.qsize() <= 1
    flooded.set()
    assert [sent.get(timeout=60) for _ in range(2)] == ["/api/v1/namespaces/default/events"] * 2


def test_a_refused_object_is_an_error_with_the_servers_words(
    server: LabServer, tmp_path: Path
) -> None:
    api = connect(server.kubeconfig)
    with pytest.raises(ApiError, match="default") as caught:
        api.create("/api/v1/namespaces/default/services", {"metadata": {"name": "Not A Name"}})
    assert caught.value.status == 422

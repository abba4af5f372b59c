"""Watching against a server that forgets, hangs up, says nothing and comes back."""

import time
from pathlib import Path
from typing import Any

import pytest

from ebpf_lb.kube.client import ApiClient, connect
from ebpf_lb.kube.resources import ENDPOINT_SLICES, SERVICES, node
from ebpf_lb.kube.watch import (
    Deleted,
    Interrupted,
    Listed,
    Problem,
    Restored,
    Watcher,
    WatchSettings,
)
from tests.api.connection import kubeconfig
from tests.api.follower import Follower, Start
from tests.api.server import ApiServer, service


def test_list_then_every_change(server: ApiServer, start: Start) -> None:
    server.put("a", service())
    follower = start()
    follower.names("a")
    server.put("b", service())
    follower.names("a", "b")
    server.put("a", service("10.96.0.9"))
    follower.wait(lambda: follower.known["a"].cluster_ips == (b"\x0a\x60\x00\x09",))
    server.remove("a")
    follower.names("b")
    assert follower.count(Listed) == 1
    assert len(server.lists()) == 1 and len(server.watches()) == 1


def test_the_list_comes_in_pages_and_as_one_event(server: ApiServer, start: Start) -> None:
    names = [f"s{number}" for number in range(8)]
    for name in names:
        server.put(name, service())
    follower = start()
    follower.names(*names)
    assert [query["limit"] for query in server.lists()] == ["3", "3", "3"]
    assert [("continue" in query) for query in server.lists()] == [False, True, True]
    assert server.compressed == 3  # lists are, as real servers compress them
    assert follower.count(Listed) == 1


def test_an_expired_continue_starts_the_list_afresh_in_one_piece(
    server: ApiServer, start: Start
) -> None:
    names = [f"s{number}" for number in range(5)]
    for name in names:
        server.put(name, service())
    original = server.answer

    def expire_before_second_page(request: Any) -> None:
        if len(server.requests) == 1:
            server.expire_continue()
        original(request)

    server.answer = expire_before_second_page  # type: ignore[method-assign]
    follower = start()
    follower.names(*names)
    assert ["limit" in query for query in server.lists()] == [True, True, False]
    assert follower.count(Listed) == 1
    server.forget()
    server.end_watches()
    follower.wait(lambda: len(server.lists()) >= 5)
    assert server.lists()[3]["limit"] == "3"  # pages again, the next time


@pytest.mark.rule("CP-4")
@pytest.mark.parametrize("how", ["event", "status"])
def test_410_lists_again_and_what_vanished_is_gone(
    server: ApiServer, start: Start, how: str
) -> None:
    server.put("a", service())
    server.put("b", service())
    follower = start()
    follower.names("a", "b")
    follower.wait(lambda: len(server.watches()) == 1)
    server.remove("a", unseen=True)
    if how == "status":
        with server.lock:
            server.refusals.append(410)
    else:
        server.forget()
    server.end_watches()
    follower.names("b")
    assert follower.count(Listed) == 2
    assert follower.count(Problem) == 0  # nothing that people need to hear of


@pytest.mark.rule("CP-4")
def test_an_ended_watch_goes_on_from_the_last_version(server: ApiServer, start: Start) -> None:
    server.put("a", service())
    follower = start()
    follower.names("a")
    server.put("b", service())
    follower.names("a", "b")
    server.end_watches()
    server.put("c", service())
    follower.names("a", "b", "c")
    assert [query["resourceVersion"] for query in server.watches()[:2]] == ["101", "102"]
    assert len(server.lists()) == 1


def test_a_bookmark_moves_the_version(server: ApiServer, start: Start) -> None:
    server.put("a", service())
    follower = start()
    follower.names("a")
    server.bookmark()
    server.put("b", service())
    follower.names("a", "b")
    server.remove("b")
    follower.names("a")
    server.bookmark()
    with server.lock:
        version = str(server.version)
    follower.wait(lambda: len(server.watches()) == 1)
    server.end_watches()  # what happened before is told before
    follower.wait(lambda: len(server.watches()) >= 2)
    assert server.watches()[1]["resourceVersion"] == version
    assert server.watches()[0]["allowWatchBookmarks"] == "true"
    assert len(server.lists()) == 1


def test_when_a_watch_was_last_heard(server: ApiServer, tmp_path: Path) -> None:
    """A bookmark counts: it says that nothing has changed."""
    now = [100.0]
    follower = Follower()
    client = connect(kubeconfig(tmp_path, server.url))
    watcher = Watcher(client, SERVICES, follower, clock=lambda: now[0])
    assert watcher.silent_s is None
    watcher.start()
    follower.wait(server.watches)
    assert watcher.silent_s == 0
    now[0] += 50
    assert watcher.silent_s == 50
    server.bookmark()
    follower.wait(lambda: watcher.silent_s == 0)
    watcher.stop(timeout_s=30)
    client.close()


@pytest.mark.rule("CP-4")
def test_a_silent_watch_is_given_up_and_made_up_for(server: ApiServer, start: Start) -> None:
    server.put("a", service())
    server.silent = True
    follower = start(WatchSettings(silence_s=2, relist_within_s=0.05))
    follower.names("a")
    follower.wait(lambda: len(server.watches()) == 1)
    server.remove("a", unseen=True)
    server.put("b", service())
    follower.names("b")
    (lost,) = (event for event in follower.events if isinstance(event, Interrupted))
    assert "nothing was heard" in lost.text and lost.silent_s == 2
    assert follower.count(Restored) == 1


@pytest.mark.rule("CP-4")
def test_a_server_that_is_away_is_reported_once_and_made_up_for(
    server: ApiServer, start: Start
) -> None:
    server.put("a", service())
    follower = start()
    follower.names("a")
    server.stop()
    follower.wait(lambda: follower.count(Problem))
    time.sleep(0.4)  # several attempts
    server.put("b", service())
    server.start()
    follower.names("a", "b")
    problems = [event.text for event in follower.events if isinstance(event, Problem)]
    assert len(problems) == len(set(problems)) <= 2  # broken, then refused
    assert server.url in problems[-1]
    assert follower.count(Listed) == 1


def test_a_server_that_starts_later_is_waited_for(server: ApiServer, start: Start) -> None:
    server.stop()
    follower = start()
    follower.wait(lambda: follower.count(Problem))
    server.put("a", service())
    server.start()
    follower.names("a")


def test_a_server_that_lost_its_history_without_saying_so(server: ApiServer, start: Start) -> None:
    server.put("a", service())
    follower = start()
    follower.names("a")
    follower.wait(lambda: len(server.watches()) == 1)
    server.remove("a", unseen=True)
    with server.lock:
        server.refusals += [504] * 5
    server.end_watches()
    follower.names()
    assert follower.count(Listed) == 2


@pytest.mark.parametrize("status", [401, 403, 429, 500, 503])
def test_a_refused_list_is_reported_and_repeated(
    server: ApiServer, start: Start, status: int
) -> None:
    server.put("a", service())
    server.refusals.append(status)
    follower = start()
    follower.names("a")
    (problem,) = (event for event in follower.events if isinstance(event, Problem))
    assert f"status {status}: on request" in problem.text and "services" in problem.text


@pytest.mark.parametrize("junk", [{"type": "ADDED"}, {"type": "ADDED", "object": 3}, 7, []])
def test_nonsense_on_a_watch_breaks_it_and_no_more(
    server: ApiServer, start: Start, junk: Any
) -> None:
    follower = start()
    follower.wait(server.watches)
    server.send(junk)
    follower.wait(lambda: follower.count(Problem))
    with server.lock:
        server.history.clear()
    server.put("a", service())
    follower.names("a")


def test_a_bad_item_is_reported_and_the_rest_goes_on(server: ApiServer, start: Start) -> None:
    body = service()
    body["spec"]["externalIPs"] = ["10.0.0.300", "192.0.2.1"]
    server.put("a", body)
    follower = start()
    follower.names("a")
    assert follower.known["a"].external_ips == (b"\xc0\x00\x02\x01",)
    (problem,) = (event for event in follower.events if isinstance(event, Problem))
    assert problem.key is not None and str(problem.key) == "default/a"
    assert "spec.externalIPs[0] '10.0.0.300'" in problem.text


def test_an_object_that_is_no_longer_for_us_is_deleted(server: ApiServer, start: Start) -> None:
    labels = {"kubernetes.io/service-name": "web"}
    body = {"addressType": "IPv4", "endpoints": [{"addresses": ["10.0.0.1"]}], "ports": []}
    server.put("web-1", body, **labels)
    follower = start(resource=ENDPOINT_SLICES)
    follower.names("web-1")
    server.put("web-1", body)  # the label is gone
    follower.names()
    assert follower.count(Deleted) == 1


def test_selectors_are_sent_with_lists_and_watches(server: ApiServer, start: Start) -> None:
    follower = start(resource=node("node1"))
    follower.wait(lambda: server.watches())
    assert {query["fieldSelector"] for query in server.requests} == {"metadata.name=node1"}
    assert all("labelSelector" not in query for query in server.requests)
    follower = start(resource=SERVICES)
    follower.wait(lambda: len(server.watches()) == 2)
    expected = "!service.kubernetes.io/headless,!service.kubernetes.io/service-proxy-name"
    assert [query["labelSelector"] for query in server.requests if "labelSelector" in query] == [
        expected,
        expected,
    ]


def test_pauses_double_with_jitter_up_to_a_bound_and_start_anew_after_progress(
    server: ApiServer, client: ApiClient
) -> None:
    pauses: list[float] = []
    follower = Follower()
    settings = WatchSettings(backoff_first_s=1, backoff_max_s=5)

    def sleep(seconds: float) -> None:
        pauses.append(seconds)
        if len(pauses) == 6:
            server.put("a", service())  # progress on the watch that follows

    server.refusals += [503] * 5
    original = server.answer

    def refuse_first_watch(request: Any) -> None:
        if "watch" in request.path and not server.watches():
            with server.lock:
                server.refusals.append(503)
        original(request)

    server.answer = refuse_first_watch  # type: ignore[method-assign]
    watcher = Watcher(
        client, SERVICES, follower, settings=settings, sleep=sleep, chance=lambda: 1.0
    )
    watcher.start()
    follower.names("a")
    assert pauses == [1, 2, 4, 5, 5, 5]
    with server.lock:
        server.refusals.append(503)
    server.end_watches()
    follower.wait(lambda: len(server.watches()) >= 3)
    follower.wait(lambda: len(pauses) == 7)
    watcher.stop()
    assert pauses[6] == 1


@pytest.mark.parametrize("tls", [False, True])
def test_stop_wakes_a_silent_watch(
    tls: bool, server: ApiServer, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    if tls:
        server = request.getfixturevalue("tls_server")
        client = connect(kubeconfig(tmp_path, server.url, ca=tmp_path / "ca.pem"))
    else:
        client = connect(kubeconfig(tmp_path, server.url))
    follower = Follower()
    watcher = Watcher(client, SERVICES, follower)
    watcher.start()
    follower.wait(server.watches)
    time.sleep(0.1)  # it now waits for a byte
    watcher.stop(timeout_s=30)  # sooner than it is given up for its silence
    assert not watcher.is_alive()
    before = len(follower.events)
    server.put("a", service())
    time.sleep(0.1)
    assert len(follower.events) == before == 1
    client.close()

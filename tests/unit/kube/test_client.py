"""Credentials: every mistake is one sentence for people."""

import json
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ebpf_lb.errors import UserError
from ebpf_lb.kube import client
from ebpf_lb.kube.client import ApiError, connect
from ebpf_lb.kube.resources import SERVICES
from ebpf_lb.kube.watch import Problem, Watcher, WatchSettings

GOOD = {
    "current-context": "c",
    "clusters": [{"name": "c", "cluster": {"server": "https://192.0.2.1:6443"}}],
    "users": [{"name": "u", "user": {"token": "secret"}}],
    "contexts": [{"name": "c", "context": {"cluster": "c", "user": "u"}}],
}


def without(name: str) -> dict[str, Any]:
    return {key: value for key, value in GOOD.items() if key != name}


def test_a_kubeconfig_says_where_the_server_is(tmp_path: Path) -> None:
    path = tmp_path / "kubeconfig"
    path.write_text(json.dumps(GOOD))
    assert connect(path).server == "https://192.0.2.1:6443"
    assert connect(path, server="https://198.51.100.1").server == "https://198.51.100.1"


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (None, "does not exist"),
        ("", "does not say how to reach a cluster"),
        ("a: [", "is not YAML in line 1"),
        ("just text", "does not say how to reach a cluster"),
        ("[1, 2]", "does not say how to reach a cluster"),
        (json.dumps(without("clusters")), "does not say how to reach a cluster"),
        (json.dumps(without("current-context")), "does not say how to reach a cluster"),
        (json.dumps(GOOD | {"current-context": "x"}), "does not say how to reach a cluster"),
        (
            json.dumps(GOOD | {"clusters": [{"name": "c", "cluster": {
                "server": "https://192.0.2.1", "certificate-authority": "/nowhere/ca.pem"}}]}),
            "/nowhere/ca.pem",
        ),
        (
            json.dumps(GOOD | {"clusters": [{"name": "c", "cluster": {
                "server": "https://192.0.2.1", "certificate-authority-data": "abc"}}]}),
            "kubeconfig",
        ),
    ],
)  # fmt: skip
def test_a_bad_kubeconfig_is_one_sentence(tmp_path: Path, content: str | None, says: str) -> None:
    path = tmp_path / "kubeconfig"
    if content is not None:
        path.write_text(content)
    with pytest.raises(UserError) as caught:
        connect(path)
    text = str(caught.value)
    assert says in text and str(path) in text
    assert "\n" not in text and text.endswith(".")


def test_a_folder_is_no_kubeconfig(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="cannot be used: Is a directory"):
        connect(tmp_path)


def test_no_pod_and_no_file(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)
    with pytest.raises(UserError, match=r"use --kubeconfig FILE\.$"):
        connect(None)


class NoServer:
    """A client whose every request fails; it stops the watcher after so many."""

    def __init__(self, attempts: int) -> None:
        self.left = attempts
        self.stop: Callable[[], None] = lambda: None

    def get(self, *_: Any, **__: Any) -> Any:
        self.left -= 1
        if self.left == 0:
            self.stop()
        raise ApiError(0, "nobody is there")


def test_an_outage_of_any_length_is_survived_and_told_once() -> None:
    """Two thousand attempts at half a minute each: a night without an API server."""
    client, events, pauses = NoServer(2000), [], []  # type: ignore[var-annotated]
    settings = WatchSettings(backoff_first_s=0.2, backoff_max_s=30)
    watcher = Watcher(
        client,  # type: ignore[arg-type]
        SERVICES,
        events.append,
        settings=settings,
        sleep=pauses.append,
        chance=lambda: 0.0,
    )
    client.stop = watcher.stop
    watcher.start()
    watcher._thread.join(120)
    assert client.left == 0 and not watcher.is_alive()
    assert pauses[:3] == [0.1, 0.2, 0.4] and max(pauses) == pauses[-1] == 15
    (problem,) = events
    assert isinstance(problem, Problem) and "nobody is there" in problem.text


def test_a_server_that_swallows_packets_is_noticed_within_six_seconds() -> None:
    """By the kernel: whatever is set, an idle connection ends when nothing was heard for so long,
    and before that somebody was asked."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as made:
        for level, name, value in client._KEEPALIVE:
            made.setsockopt(level, name, value)
        asked = {
            name: made.getsockopt(socket.IPPROTO_TCP, getattr(socket, f"TCP_{name}"))
            for name in ("KEEPIDLE", "KEEPINTVL", "KEEPCNT", "USER_TIMEOUT")
        }
        assert made.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
    assert asked["KEEPIDLE"] + asked["KEEPINTVL"] * asked["KEEPCNT"] <= 6
    assert asked["USER_TIMEOUT"] <= 6000

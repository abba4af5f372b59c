"""What a consumer of watches knows, and time-outs that a test can wait for."""

import time
from collections.abc import Callable
from typing import Any

from ebpf_lb.kube.watch import Changed, Deleted, Event, Listed, WatchSettings

QUICK = WatchSettings(
    page_size=3,
    server_timeout_s=60,
    silence_s=30,
    relist_within_s=0.05,
    backoff_first_s=0.02,
    backoff_max_s=0.1,
)


class Follower:
    """What a consumer knows after the events so far."""

    def __init__(self) -> None:
        self.events: list[Event] = []
        self.known: dict[str, Any] = {}

    def __call__(self, event: Event) -> None:
        self.events.append(event)
        if isinstance(event, Listed):
            self.known = {value.key.name: value for value in event.objects}
        elif isinstance(event, Changed):
            self.known[event.key.name] = event.object
        elif isinstance(event, Deleted):
            self.known.pop(event.key.name, None)

    def wait(self, until: Callable[[], object], timeout_s: float = 60) -> None:
        """`until` may look at the server, too."""
        deadline = time.monotonic() + timeout_s
        while not until():
            assert time.monotonic() < deadline, (self.events, until)
            time.sleep(0.005)

    def names(self, *names: str) -> None:
        self.wait(lambda: self.known.keys() == set(names))

    def count(self, kind: type) -> int:
        return sum(isinstance(event, kind) for event in self.events)


class Recorder(Follower):
    """One that only listens."""

    def __call__(self, event: Event) -> None:
        self.events.append(event)

    def all(self, kind: type[Any]) -> list[Any]:
        return [event for event in self.events if isinstance(event, kind)]


Start = Callable[..., Follower]
"""The fixture `start`: a watcher with settings, of a kind, by a sort of follower."""

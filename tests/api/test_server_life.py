"""A server that restarts, hangs, forgets and refuses: what is new comes within seconds, at a moment
that chance chooses, and people hear of it once."""

from collections.abc import Callable
from dataclasses import replace

import pytest

from ebpf_lb.kube.client import ApiClient
from ebpf_lb.kube.resources import SERVICES
from ebpf_lb.kube.watch import DEFAULTS, Interrupted, Listed, Restored, Watcher
from tests.api.follower import QUICK, Follower, Start
from tests.api.server import ApiServer, service

PROMISED_S = 5.0
BOOKMARKS_S = 60.0  # between two of a server's


class Paced:
    """A watcher whose pauses are written down and not waited for."""

    def __init__(self, client: ApiClient, chance: float = 1.0) -> None:
        self.pauses: list[float] = []
        self.between: Callable[[], None] = lambda: None
        self.follower = Follower()
        self.watcher = Watcher(
            client, SERVICES, self.follower,
            settings=replace(DEFAULTS, page_size=3), sleep=self._sleep, chance=lambda: chance,
        )  # fmt: skip

    def _sleep(self, seconds: float) -> None:
        self.pauses.append(seconds)
        self.between()


@pytest.mark.parametrize("chance", [0.0, 0.5, 1.0])
def test_after_410_the_list_comes_at_a_moment_by_chance_whatever_was_before(
    server: ApiServer, client: ApiClient, chance: float
) -> None:
    """The outage before it had made pauses long."""
    server.put("a", service())
    paced = Paced(client, chance)
    paced.watcher.start()
    paced.follower.names("a")
    paced.follower.wait(lambda: len(server.watches()) == 1)
    server.remove("a", unseen=True)
    server.put("b", service())
    with server.lock:
        server.refusals += [503] * 4 + [410]
    server.end_watches()
    paced.follower.names("b")
    paced.watcher.stop()
    assert paced.pauses[4] == DEFAULTS.relist_within_s * chance
    assert max(paced.pauses) <= PROMISED_S


def test_the_longest_pause_is_within_what_is_promised(server: ApiServer, client: ApiClient) -> None:
    """However long the server was away."""
    server.put("a", service())
    paced = Paced(client)
    server.stop()

    def after_a_night() -> None:
        if len(paced.pauses) == 50:
            server.start()

    paced.between = after_a_night
    paced.watcher.start()
    paced.follower.names("a")
    paced.watcher.stop()
    assert max(paced.pauses) == DEFAULTS.backoff_max_s <= PROMISED_S
    assert paced.follower.count(Interrupted) == paced.follower.count(Restored) == 1


def test_a_server_that_wishes_to_be_left_alone_is(server: ApiServer, client: ApiClient) -> None:
    server.put("a", service())
    server.refusals = [429]
    server.retry_after_s = 12
    paced = Paced(client)
    paced.watcher.start()
    paced.follower.names("a")
    paced.watcher.stop()
    assert paced.pauses == [12]


def test_silence_is_not_told_from_a_late_bookmark() -> None:
    assert DEFAULTS.silence_s >= 2 * BOOKMARKS_S + PROMISED_S


def test_causes_stay_the_same_and_name_no_objects(server: ApiServer, start: Start) -> None:
    server.stop()
    follower = start(QUICK)
    follower.wait(lambda: follower.count(Interrupted))
    server.start()
    follower.wait(lambda: follower.count(Listed))
    (told,) = (event for event in follower.events if isinstance(event, Interrupted))
    assert told.cause == f"the API server {server.url} cannot be reached: connection refused"

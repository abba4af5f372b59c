"""Kinds that a server may not have: slices, ServiceCIDRs."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from ebpf_lb.kube.client import ApiError
from ebpf_lb.kube.resources import ENDPOINT_SLICES_OR_ENDPOINTS, ENDPOINTS, SERVICE_CIDRS
from ebpf_lb.kube.watch import Changed, Listed, Problem, Watcher
from tests.api.follower import QUICK, Recorder, Start
from tests.api.server import ApiServer


def endpoints(address: str) -> dict[str, Any]:
    return {"subsets": [{"addresses": [{"ip": address}], "ports": [{"port": 80}]}]}


@pytest.mark.rule("EP-1")
def test_a_server_without_slices_is_asked_for_endpoints(server: ApiServer, start: Start) -> None:
    server.absent = "/apis/discovery.k8s.io/"
    server.put("web", endpoints("10.0.0.1"))
    recorder = start(resource=ENDPOINT_SLICES_OR_ENDPOINTS, by=Recorder)
    recorder.wait(lambda: recorder.all(Listed))
    (listed,) = recorder.all(Listed)
    assert listed.resource == ENDPOINTS
    assert [[s.service.name for s in slices] for slices in listed.objects] == [["web"]]
    server.put("web", endpoints("10.0.0.2"))
    recorder.wait(lambda: recorder.all(Changed))
    (changed,) = recorder.all(Changed)
    assert (changed.resource, changed.key.name) == (ENDPOINTS, "web")
    assert [s.addresses for s in changed.object] == [b"\x0a\0\0\x02"]
    assert not recorder.all(Problem)


def test_a_server_that_has_slices_is_not_asked_for_endpoints(
    server: ApiServer, start: Start
) -> None:
    follower = start(resource=ENDPOINT_SLICES_OR_ENDPOINTS)
    follower.wait(lambda: follower.count(Listed))
    assert [e.resource.name for e in follower.events if isinstance(e, Listed)] == ["endpointslices"]


@pytest.mark.parametrize("refusal", [503, 403])
def test_only_a_server_that_has_no_slices_is_asked_for_endpoints(
    server: ApiServer, start: Start, refusal: int
) -> None:
    server.refusals = [refusal] * 3
    follower = start(resource=ENDPOINT_SLICES_OR_ENDPOINTS)
    follower.wait(lambda: follower.count(Listed))
    assert [e.resource.name for e in follower.events if isinstance(e, Listed)] == ["endpointslices"]
    assert follower.count(Problem) == 1


def service_cidr(*networks: str) -> dict[str, Any]:
    return {"spec": {"cidrs": list(networks)}}


@pytest.mark.parametrize("missing", [404, 403])
def test_what_is_optional_is_empty_where_it_is_missing_until_it_is_there(
    server: ApiServer, start: Start, missing: int
) -> None:
    server.put("kubernetes", service_cidr("10.96.0.0/12"))
    server.refusals = [missing] * 2
    follower = start(replace(QUICK, absent_s=0.02), SERVICE_CIDRS)
    follower.names("kubernetes")
    lists = [event.objects for event in follower.events if isinstance(event, Listed)]
    assert [len(objects) for objects in lists] == ([0, 0, 1] if missing == 404 else [0, 1])
    assert follower.count(Problem) == (missing == 403)
    server.put("more", service_cidr("10.112.0.0/16"))
    follower.names("kubernetes", "more")


def test_what_is_optional_is_not_empty_because_the_server_is_away(
    server: ApiServer, start: Start
) -> None:
    server.put("kubernetes", service_cidr("10.96.0.0/12"))
    server.refusals = [500, 503]
    follower = start(resource=SERVICE_CIDRS)
    follower.names("kubernetes")
    assert follower.count(Listed) == 1


def test_rights_that_are_missing_for_a_while_take_nothing_away(
    server: ApiServer, start: Start
) -> None:
    """An API server that has just started does not know its roles yet."""
    server.put("kubernetes", service_cidr("10.96.0.0/12"))
    follower = start(resource=SERVICE_CIDRS)
    follower.names("kubernetes")
    follower.wait(lambda: len(server.watches()) == 1)
    server.put("more", service_cidr("10.112.0.0/16"))
    follower.names("kubernetes", "more")
    with server.lock:
        server.refusals = [410, 403, 403]
    server.end_watches()
    follower.wait(lambda: follower.count(Listed) == 2)
    assert [len(e.objects) for e in follower.events if isinstance(e, Listed)] == [1, 2]


def test_missing_rights_are_asked_for_within_seconds_and_then_with_patience() -> None:
    """Somebody is about to grant them, or nobody ever does."""
    pauses: list[float] = []
    settings = replace(QUICK, relist_within_s=4, absent_s=60)
    watcher = Watcher(
        Forbidding(lambda: watcher.stop(), 40),  # type: ignore[arg-type]
        SERVICE_CIDRS,
        lambda event: None,
        settings=settings,
        sleep=pauses.append,
        chance=lambda: 1.0,
    )
    watcher.start()
    watcher._thread.join(60)
    assert set(pauses[:20]) == {4} and set(pauses[30:]) == {60}


class Forbidding:
    """A client without rights; it ends the test after so many requests."""

    def __init__(self, stop: Callable[[], None], requests: int) -> None:
        self._stop = stop
        self._left = requests

    def get(self, *_: Any, **__: Any) -> Any:
        self._left -= 1
        if not self._left:
            self._stop()
        raise ApiError(403, "forbidden")

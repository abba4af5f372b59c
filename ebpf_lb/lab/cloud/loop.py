"""The cloud's loop: events in, addresses and routes out. One thread does everything but waiting."""

import functools
import http.client
import logging
import queue
import threading
import time
from pathlib import Path
from typing import NamedTuple, NoReturn

from ebpf_lb.lab.cloud import requests
from ebpf_lb.lab.cloud.addresses import (
    GIVEN,
    Decision,
    Pool,
    decide,
    external_addresses,
    is_external,
)
from ebpf_lb.lab.cloud.health import INTERVAL_S, Health
from ebpf_lb.lab.cloud.router import Router
from ebpf_lb.lab.cloud.ways import Check, Target, Way, checks, own_addresses, targets, ways
from ebpf_lb.lab.objects.client import ApiError, Client, Json
from ebpf_lb.lab.objects.follow import follow

log = logging.getLogger("cloud")

_SERVICES, _NODES = "/api/v1/services", "/api/v1/nodes"


class _Objects(NamedTuple):
    """A list, or one watch event, of a collection."""

    path: str
    news: list[Json] | Json


class _Answer(NamedTuple):
    check: Check
    healthy: bool | None


_Event = _Objects | _Answer | requests.Request


class Cloud:
    """`run` returns never. Lives in the router's network namespace."""

    def __init__(self, client: Client, router: Router, pool: Pool, socket_path: Path):
        self._client = client
        self._router = router
        self._pool = pool
        self._socket_path = socket_path
        self._events: queue.Queue[_Event] = queue.Queue()
        self._health = Health(lambda *answer: self._events.put(_Answer(*answer)))
        self._objects: dict[str, dict[str, Json]] = {}  # path -> uid -> object
        self._pins: dict[str, str] = {}  # address -> node
        self._problems: dict[str, str] = {}  # uid -> what was reported last

    def run(self) -> NoReturn:
        for path in (_SERVICES, _NODES):
            put = functools.partial(self._put_news, path)
            threading.Thread(target=follow, args=(self._client, path, put), daemon=True).start()
        threading.Thread(
            target=requests.serve, args=(self._socket_path, self._events.put), daemon=True
        ).start()
        poll_at = time.monotonic()
        while True:
            events = self._next(poll_at)
            waiting = self._handle(events)
            known = self._objects.keys() == {_SERVICES, _NODES}
            if time.monotonic() >= poll_at:
                poll_at = time.monotonic() + INTERVAL_S
                if known:
                    self._health.poll(checks(self._services, self._targets))
            if not known or not events:
                continue  # nothing is taken away before all is known
            self._give_addresses()
            found = self._ways()
            self._router.sync(self._routes(found))
            for request in waiting:
                request.answer.put(self._respond(request.body, found))

    def _put_news(self, path: str, news: list[Json] | Json) -> None:
        self._events.put(_Objects(path, news))

    def _next(self, poll_at: float) -> list[_Event]:
        """Whatever has come, at least one event unless it is time to ask the nodes."""
        try:
            events = [self._events.get(timeout=max(0.0, poll_at - time.monotonic()))]
        except queue.Empty:
            return []
        while not self._events.empty():
            events.append(self._events.get())
        return events

    def _handle(self, events: list[_Event]) -> list[requests.Request]:
        """Takes note of everything; yields the requests, to be answered when it is all done."""
        waiting = []
        for event in events:
            match event:
                case _Objects(path, list(items)):
                    self._objects[path] = {}
                    for item in items:
                        self._take(path, item)
                case _Objects(path, dict(news)):
                    self._take(path, news["object"], gone=news["type"] == "DELETED")
                case _Answer(check, healthy):
                    self._health.take(check, healthy)
                case requests.Request():
                    self._pin(event.body)
                    waiting.append(event)
        return waiting

    def _take(self, path: str, object_: Json, gone: bool = False) -> None:
        """Of thousands of Services, only those that concern the outside are kept."""
        uid = object_["metadata"]["uid"]
        if gone or (path == _SERVICES and not is_external(object_)):
            self._objects[path].pop(uid, None)
        else:
            self._objects[path][uid] = object_

    @property
    def _services(self) -> list[Json]:
        services = self._objects[_SERVICES].values()
        return sorted(services, key=lambda s: (s["metadata"]["namespace"], s["metadata"]["name"]))

    @property
    def _targets(self) -> list[Target]:
        return targets(self._objects[_NODES].values())

    # --- addresses

    def _give_addresses(self) -> None:
        for service in self._services:
            taken = {
                address
                for other in self._services
                if other is not service
                for address in external_addresses(other)
            }
            decision = decide(service, self._pool, taken)
            uid = service["metadata"]["uid"]
            if decision is None:
                self._problems.pop(uid, None)
                continue
            if decision.problem and self._problems.get(uid) != decision.problem:
                self._problems[uid] = decision.problem
                self._complain(service, decision.problem)
            self._give(service, decision)

    def _give(self, service: Json, decision: Decision) -> None:
        metadata = service["metadata"]
        status = {"loadBalancer": {"ingress": [{"ip": a} for a in decision.addresses]}}
        present = (service.get("status", {}).get("loadBalancer") or {}).get("ingress") or []
        if [ingress.get("ip") for ingress in present] == list(decision.addresses):
            return
        patch = {
            "metadata": {
                "uid": metadata["uid"],
                "resourceVersion": metadata["resourceVersion"],  # nobody's own status is lost
                "annotations": {GIVEN: ",".join(decision.addresses)},
            },
            "status": status,
        }
        try:
            given = self._client.patch(f"{_path(service)}/status", patch)
        except ApiError as error:
            if error.status not in (404, 409):  # changed meanwhile: the change is on its way here
                log.error("%s: %s", _path(service), error)
        except (OSError, http.client.HTTPException) as error:
            log.error("%s: %s", _path(service), error)
        else:
            self._objects[_SERVICES][metadata["uid"]] = given
            log.info("%s has %s", _path(service), ", ".join(decision.addresses) or "no address")

    def _complain(self, service: Json, problem: str) -> None:
        """An event, as a cloud's controller writes it."""
        log.warning("%s: %s", _path(service), problem)
        namespace = service["metadata"]["namespace"]
        involved = {key: service["metadata"][key] for key in ("namespace", "name", "uid")}
        event = {
            "metadata": {"generateName": f"{service['metadata']['name']}."},
            "involvedObject": {"apiVersion": "v1", "kind": "Service", **involved},
            "type": "Warning",
            "reason": "SyncLoadBalancerFailed",
            "message": problem,
            "source": {"component": "lab-cloud"},
        }
        try:
            self._client.create(f"/api/v1/namespaces/{namespace}/events", event)
        except (ApiError, OSError, http.client.HTTPException) as error:
            log.error("event about %s: %s", _path(service), error)

    # --- routes

    def _ways(self) -> dict[str, Way]:
        own = own_addresses(self._objects[_NODES].values())
        return ways(self._services, self._targets, self._health.healthy, self._pins, own)

    def _routes(self, found: dict[str, Way]) -> dict[str, tuple[str, ...]]:
        by_name = {target.name: target for target in self._targets}
        return {
            address: tuple(
                gateway
                for node in way.nodes
                if (gateway := by_name[node].address(6 if ":" in address else 4))
            )
            for address, way in found.items()
        }

    def _pin(self, body: Json) -> None:
        """Pins last as long as this process, also while their address is nobody's."""
        if "address" not in body:
            return
        if body.get("node"):
            self._pins[body["address"]] = body["node"]
        else:
            self._pins.pop(body["address"], None)

    def _respond(self, body: Json, found: dict[str, Way]) -> Json:
        address = body.get("address")
        if address is not None and address not in found:
            self._pins.pop(address, None)
            known = f": there are {', '.join(found)}" if found else ""
            return {"error": f"no Service has the external address {address}{known}"}
        return {
            "routes": {
                address: {"nodes": list(way.nodes), "pinned": way.pinned}
                for address, way in found.items()
            }
        }


def _path(service: Json) -> str:
    metadata = service["metadata"]
    return f"/api/v1/namespaces/{metadata['namespace']}/services/{metadata['name']}"

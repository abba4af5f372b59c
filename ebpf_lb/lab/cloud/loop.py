"""The cloud's loop: events in, addresses and routes out. One thread does everything but waiting."""

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
from ebpf_lb.lab.objects.client import Client, Json, best_effort
from ebpf_lb.lab.objects.follow import Mirror, News, follow_each, taken

log = logging.getLogger("cloud")

_SERVICES, _NODES = "/api/v1/services", "/api/v1/nodes"


class _Objects(NamedTuple):
    """A list, or one watch event, of a collection."""

    path: str
    news: News


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
        # of thousands of Services, only those that concern the outside are kept
        self._mirror = Mirror(lambda path, object_: path == _NODES or is_external(object_))
        self._pins: dict[str, str] = {}  # address -> node
        self._problems: dict[str, str] = {}  # uid -> what was reported last

    def run(self) -> NoReturn:
        paths = (_SERVICES, _NODES)
        follow_each(self._client, paths, lambda *news: self._events.put(_Objects(*news)))
        threading.Thread(
            target=requests.serve, args=(self._socket_path, self._events.put), daemon=True
        ).start()
        poll_at = time.monotonic()
        while True:
            events = taken(self._events, poll_at)
            waiting = self._handle(events)
            known = self._mirror.knows(paths)
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

    def _handle(self, events: list[_Event]) -> list[requests.Request]:
        """Takes note of everything; yields the requests, to be answered when it is all done."""
        waiting = []
        for event in events:
            match event:
                case _Objects(path, news):
                    self._mirror.take(path, news)
                case _Answer(check, healthy):
                    self._health.take(check, healthy)
                case requests.Request():
                    self._pin(event.body)
                    waiting.append(event)
        return waiting

    @property
    def _services(self) -> list[Json]:
        return self._mirror.of(_SERVICES)

    @property
    def _targets(self) -> list[Target]:
        return targets(self._mirror.of(_NODES))

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
        with best_effort(log, _path(service)):
            self._mirror.put(_SERVICES, self._client.patch(f"{_path(service)}/status", patch))
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
        with best_effort(log, f"event about {_path(service)}"):
            self._client.create(f"/api/v1/namespaces/{namespace}/events", event)

    # --- routes

    def _ways(self) -> dict[str, Way]:
        own = own_addresses(self._mirror.of(_NODES))
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

"""Follows the API server; whenever something has changed, nginx gets what is wanted now."""

import logging
import queue
import time
from collections.abc import Callable
from typing import Any, NoReturn

from ebpf_lb.apiserver.kinds import ENDPOINT_SLICE, INGRESS, INGRESS_CLASS, SECRET, SERVICE
from ebpf_lb.containers.ingress.nginx import Nginx, NoNginxError
from ebpf_lb.containers.ingress.rules import Sites, sites
from ebpf_lb.lab.objects.client import Client, best_effort
from ebpf_lb.lab.objects.follow import Mirror, News, follow_each, taken

Json = dict[str, Any]
log = logging.getLogger("ingress")

KINDS = (INGRESS, INGRESS_CLASS, SERVICE, ENDPOINT_SLICE, SECRET)
PATHS = tuple(kind.collection_path(None) for kind in KINDS)
_PAUSE_S = 0.1  # what changes together is served together
_AGAIN_S = 1.0


class Controller:
    """publish: the Service (NAMESPACE/NAME) whose addresses the Ingresses have."""

    def __init__(self, client: Client, nginx: Nginx, publish: str) -> None:
        self._client = client
        self._nginx = nginx
        self._publish = publish
        self._mirror = Mirror()
        self._news: queue.Queue[tuple[str, News]] = queue.Queue()
        self._told: tuple[str, ...] = ()

    def run(self, serving: Callable[[], None]) -> NoReturn:
        """For ever; `serving` is called once nginx serves what the first lists say. NoNginxError:
        it does not start, or has ended."""
        follow_each(self._client, PATHS, lambda *news: self._news.put(news))
        while not self._mirror.knows(PATHS):
            self._mirror.take(*self._news.get())
        self._sync()
        serving()
        while True:
            news = taken(self._news, time.monotonic() + _AGAIN_S)
            if not news and not self._nginx.alive:
                raise NoNginxError("nginx has ended: see the pod's log")
            if not news:
                continue
            time.sleep(_PAUSE_S)
            for one in [*news, *taken(self._news, 0)]:
                self._mirror.take(*one)
            self._sync()

    def _sync(self) -> None:
        found = sites(*map(self._mirror.of, PATHS))
        if found.problems != self._told:
            for problem in found.problems:
                log.warning("%s", problem)
            self._told = found.problems
        self._nginx.serve(found)
        self._write_addresses(found)

    def _write_addresses(self, found: Sites) -> None:
        """Into the Ingresses' status: where clients find them."""
        namespace, _, name = self._publish.partition("/")
        wanted: list[Json] = []
        for service in self._mirror.of(SERVICE.collection_path(None)):
            if (service["metadata"]["namespace"], service["metadata"]["name"]) == (namespace, name):
                given = (service.get("status") or {}).get("loadBalancer") or {}
                wanted = [{"ip": one["ip"]} for one in given.get("ingress") or () if "ip" in one]
        for ingress in self._mirror.of(INGRESS.collection_path(None)):
            metadata = ingress["metadata"]
            status = (ingress.get("status") or {}).get("loadBalancer") or {}
            key = (metadata["namespace"], metadata["name"])
            if key in found.owners and (status.get("ingress") or []) != wanted:
                self._write(key, wanted)

    def _write(self, key: tuple[str, str], wanted: list[Json]) -> None:
        change = {"status": {"loadBalancer": {"ingress": wanted}}}
        with best_effort(log, "/".join(key)):
            self._client.patch(f"{INGRESS.path(*key)}/status", change)

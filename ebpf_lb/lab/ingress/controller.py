"""Follows the API server; whenever something has changed, nginx gets what is wanted now."""

import functools
import http.client
import logging
import queue
import threading
import time
from collections.abc import Callable
from typing import Any, NoReturn

from ebpf_lb.lab.apiserver.kinds import ENDPOINT_SLICE, INGRESS, INGRESS_CLASS, SECRET, SERVICE
from ebpf_lb.lab.ingress.nginx import Nginx, NoNginxError
from ebpf_lb.lab.ingress.rules import Sites, sites
from ebpf_lb.lab.objects.client import ApiError, Client
from ebpf_lb.lab.objects.follow import follow

Json = dict[str, Any]
log = logging.getLogger("ingress")

KINDS = (INGRESS, INGRESS_CLASS, SERVICE, ENDPOINT_SLICE, SECRET)
_PAUSE_S = 0.1  # what changes together is served together
_AGAIN_S = 1.0


class Controller:
    """publish: the Service (NAMESPACE/NAME) whose addresses the Ingresses have."""

    def __init__(self, client: Client, nginx: Nginx, publish: str) -> None:
        self._client = client
        self._nginx = nginx
        self._publish = publish
        self._objects: dict[str, dict[str, Json]] = {}  # by path, by uid
        self._news: queue.Queue[tuple[str, list[Json] | Json]] = queue.Queue()
        self._told: tuple[str, ...] = ()

    def run(self, serving: Callable[[], None]) -> NoReturn:
        """For ever; `serving` is called once nginx serves what the first lists say. NoNginxError:
        it does not start, or has ended."""
        for kind in KINDS:
            path = kind.collection_path(None)
            put = functools.partial(self._put, path)
            threading.Thread(target=follow, args=(self._client, path, put), daemon=True).start()
        while len(self._objects) < len(KINDS):
            self._take(self._news.get())
        self._sync()
        serving()
        while True:
            try:
                self._take(self._news.get(timeout=_AGAIN_S))
            except queue.Empty:
                if not self._nginx.alive:
                    raise NoNginxError("nginx has ended: see the pod's log") from None
                continue
            time.sleep(_PAUSE_S)
            while not self._news.empty():
                self._take(self._news.get())
            self._sync()

    def _put(self, path: str, news: list[Json] | Json) -> None:
        self._news.put((path, news))

    def _take(self, told: tuple[str, list[Json] | Json]) -> None:
        path, news = told
        if isinstance(news, list):
            self._objects[path] = {one["metadata"]["uid"]: one for one in news}
        elif news["type"] == "DELETED":
            self._objects[path].pop(news["object"]["metadata"]["uid"], None)
        else:
            self._objects[path][news["object"]["metadata"]["uid"]] = news["object"]

    def _of(self, path: str) -> list[Json]:
        return list(self._objects[path].values())

    def _sync(self) -> None:
        found = sites(*(self._of(kind.collection_path(None)) for kind in KINDS))
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
        for service in self._of(SERVICE.collection_path(None)):
            if (service["metadata"]["namespace"], service["metadata"]["name"]) == (namespace, name):
                given = (service.get("status") or {}).get("loadBalancer") or {}
                wanted = [{"ip": one["ip"]} for one in given.get("ingress") or () if "ip" in one]
        for ingress in self._of(INGRESS.collection_path(None)):
            metadata = ingress["metadata"]
            status = (ingress.get("status") or {}).get("loadBalancer") or {}
            key = (metadata["namespace"], metadata["name"])
            if key in found.owners and (status.get("ingress") or []) != wanted:
                self._write(key, wanted)

    def _write(self, key: tuple[str, str], wanted: list[Json]) -> None:
        change = {"status": {"loadBalancer": {"ingress": wanted}}}
        try:
            self._client.patch(f"{INGRESS.path(*key)}/status", change)
        except ApiError as error:
            if error.status not in (404, 409):  # it changes, and the change is on its way here
                log.error("%s/%s: %s", *key, error)
        except (OSError, http.client.HTTPException) as error:
            log.error("%s/%s: %s", *key, error)

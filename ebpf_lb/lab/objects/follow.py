"""Following a collection: a list, then the changes, then a list again when the watch is lost."""

import http.client
import logging
import time
from collections.abc import Callable
from typing import NoReturn

from ebpf_lb.lab.objects.client import ApiError, Client, Json

log = logging.getLogger(__name__)

_WATCH_S = 300
_RETRY_S = 0.3


def follow(client: Client, path: str, put: Callable[[list[Json] | Json], None]) -> NoReturn:
    """Calls `put` with whole lists of objects and with single watch events, for ever: a thread's
    work. What is missing in a list that comes later is gone."""
    while True:
        try:
            listed = client.get(path)
            put(listed["items"])
            version = listed["metadata"]["resourceVersion"]
            while True:
                version = _watch(client, path, version, put)
        except ApiError as error:
            if error.status != 410:  # 410: too old a version, which a list mends
                log.warning("API server: %s", error)
        except (OSError, http.client.HTTPException) as error:
            log.warning("API server does not answer: %s", error)
        time.sleep(_RETRY_S)


def _watch(
    client: Client, path: str, version: str, put: Callable[[list[Json] | Json], None]
) -> str:
    """One watch request; yields the version to go on from."""
    for event in client.watch(path, version, _WATCH_S):
        if event["type"] == "ERROR":
            raise ApiError(
                event["object"].get("code", 500),
                event["object"].get("reason", ""),
                event["object"].get("message", ""),
            )
        version = event["object"]["metadata"]["resourceVersion"]
        if event["type"] != "BOOKMARK":
            put(event)
    return version

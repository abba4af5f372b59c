"""What one agent costs a real API server: by list, by change, by reconnect. In turns, so that a
busy machine moves all alike; processor time is the server's own, of user and system.
"""

from __future__ import annotations

import asyncio
import statistics
import time
from collections.abc import Awaitable, Callable, Iterable
from contextlib import AsyncExitStack
from typing import Any
from urllib.parse import urlencode

from ebpf_lb.kube import resources
from tests.bench.apiserver import objects
from tests.bench.apiserver.client import JSON, PROTOBUF, Connection
from tests.bench.apiserver.server import Server

_SLICES = resources.ENDPOINT_SLICES
_AT_ONCE = 16
_LISTS = 6
_HEADLESS = {"service.kubernetes.io/headless": ""}
INITIAL_END = b"k8s.io/initial-events-end"

LISTS: dict[str, dict[str, Any]] = {
    "JSON, pages of 200": {"page": 200},
    "JSON, pages of 200, gzip": {"page": 200, "gzip": True},
    "JSON, pages of 500, gzip": {"page": 500, "gzip": True},
    "JSON, whole": {},
    "JSON, whole, gzip": {"gzip": True},
    "protobuf, whole, gzip": {"accept": PROTOBUF, "gzip": True},
    "streamed (sendInitialEvents), JSON": {"streamed": True},
    "streamed (sendInitialEvents), protobuf": {"streamed": True, "accept": PROTOBUF},
}
WATCHES = {"JSON": JSON, "protobuf": PROTOBUF}


def _path(query: dict[str, str]) -> str:
    return f"{_SLICES.path}?{urlencode(_SLICES.selectors | query)}"


async def fill(server: Server, services: int, pods: int) -> None:
    """As many Services with their slices, and one that is headless."""
    numbers = iter(range(services))

    async def work() -> None:
        async with Connection(server) as connection:
            for number in numbers:
                for path, one in (
                    (objects.SERVICES, objects.service(number)),
                    (objects.SLICES, objects.endpoint_slice(number, pods)),
                ):
                    await _told(connection, path, "POST", one, JSON)

    await asyncio.gather(*(work() for _ in range(_AT_ONCE)))
    headless = objects.endpoint_slice(services, pods)
    headless["metadata"]["labels"] |= _HEADLESS
    async with Connection(server) as connection:
        await _told(connection, objects.SLICES, "POST", headless, JSON)


async def _told(connection: Connection, path: str, method: str, body: Any, kind: str) -> None:
    answer = await connection.ask(path, method=method, body=body, kind=kind)
    if answer.status not in (200, 201):
        raise RuntimeError(f"{method} {path}: {answer.status}")


async def lists(server: Server, services: int, rounds: int) -> list[dict[str, Any]]:
    """For each way to get all slices: its bytes, and the server's seconds, of one slice."""
    found: dict[str, list[tuple[int, float]]] = {name: [] for name in LISTS}
    for number in range(rounds + 1):
        for name, how in LISTS.items():
            used, received = await _costs(server, lambda how=how: _listed(server, **how))
            if number:  # the first one warms up
                found[name].append((received, used))
    return [
        {
            "how": name,
            "bytes": statistics.median(one for one, _ in costs) / services,
            "cpu_s": statistics.median(one for _, one in costs) / services,
        }
        for name, costs in found.items()
    ]


async def _listed(
    server: Server, page: int = 0, accept: str = JSON, gzip: bool = False, streamed: bool = False
) -> int:
    """Some times, so that the clock is fine enough; the bytes of one."""
    received = 0
    for _ in range(_LISTS):
        async with Connection(server) as connection:
            if streamed:
                query = {
                    "watch": "1",
                    "sendInitialEvents": "true",
                    "allowWatchBookmarks": "true",
                    "resourceVersionMatch": "NotOlderThan",
                    "timeoutSeconds": "60",
                }
                await connection.watch(_path(query), _streamed(accept))
                received += await connection.until(INITIAL_END)
                continue
            query = {"limit": str(page)} if page else {}
            while True:
                answer = await connection.ask(_path(query), accept=accept, gzip=gzip)
                received += answer.received
                if accept != JSON or not page:
                    break
                more = answer.document()["metadata"].get("continue", "")
                if not more:
                    break
                query["continue"] = more
    return received // _LISTS


def _streamed(accept: str) -> str:
    return f"{accept};stream=watch" if accept == PROTOBUF else accept


async def _costs(server: Server, work: Callable[[], Awaitable[int]]) -> tuple[float, int]:
    """The server's seconds of processors for one list, and bytes."""
    before = server.cpu_s
    received = await work()
    return (server.cpu_s - before) / _LISTS, received


async def changes(
    server: Server, services: int, pods: int, watchers: Iterable[int], number: int
) -> list[dict[str, Any]]:
    """For each encoding and number of watches: the server's seconds and a watch's bytes, of one
    change. `headless`: the same of what the selector leaves out."""
    found: list[dict[str, Any]] = []
    for count in watchers:
        for encoding, accept in WATCHES.items():
            found.append(
                {"encoding": encoding, "watches": count}
                | await _watched(server, count, accept, pods, number, services)
            )
    return found


async def _watched(
    server: Server, count: int, accept: str, pods: int, number: int, services: int
) -> dict[str, Any]:
    async with AsyncExitStack() as stack:
        version = await _version(server)
        counts, tasks = [0] * count, []
        query = {"watch": "1", "resourceVersion": version, "allowWatchBookmarks": "true",
                 "timeoutSeconds": "600"}  # fmt: skip
        for one in range(count):
            connection = await stack.enter_async_context(Connection(server))
            await connection.watch(_path(query), _streamed(accept))
            tasks.append(asyncio.create_task(connection.count(counts, one)))
        idle_s = await _idle(server)
        measured = {}
        for what, of in (("ours", list(range(min(services, number)))), ("headless", [services])):
            start = sum(counts)
            began, used = time.monotonic(), server.cpu_s
            async with Connection(server) as connection:
                for turn in range(number):
                    one = of[turn % len(of)]
                    body = objects.changed(one, pods, turn)
                    path = f"{objects.SLICES}/service-{one}-x7k2p"
                    await _told(connection, path, "PATCH", body, "application/merge-patch+json")
            await _settled(counts)
            took_s, used = time.monotonic() - began, server.cpu_s - used
            measured[f"cpu_s_{what}"] = max(used - idle_s * took_s, 0.0) / number
            measured[f"bytes_{what}"] = (sum(counts) - start) / number / max(count, 1)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        return measured


async def _settled(counts: list[int]) -> None:
    """Until nothing more comes."""
    before = -1
    while before != (before := sum(counts)):
        await asyncio.sleep(0.5)


async def _idle(server: Server) -> float:
    """What it uses by itself, of a second."""
    await asyncio.sleep(1)
    used = server.cpu_s
    await asyncio.sleep(5)
    return (server.cpu_s - used) / 5


async def _version(server: Server) -> str:
    async with Connection(server) as connection:
        answer = await connection.ask(_path({"limit": "1"}))
        return str(answer.document()["metadata"]["resourceVersion"])


async def reconnects(server: Server, number: int) -> dict[str, float]:
    """A watch on a new connection, from where it was: seconds of the server's processors."""
    version = await _version(server)
    query = {"watch": "1", "resourceVersion": version, "timeoutSeconds": "60"}
    idle_s = await _idle(server)
    began, used = time.monotonic(), server.cpu_s
    for _ in range(number):
        async with Connection(server) as connection:
            await connection.watch(_path(query), JSON)
    took_s, used = time.monotonic() - began, server.cpu_s - used
    return {"cpu_s": max(used - idle_s * took_s, 0.0) / number}

"""Requests as agents make them, hundreds at once: bytes are counted, not read.

HTTP/1.1 by asyncio. A watch has a connection of its own, as an agent's has.
"""

from __future__ import annotations

import asyncio
import json
import zlib
from collections.abc import Mapping
from typing import Any

from tests.bench.apiserver.server import TOKEN, Server

JSON, PROTOBUF = "application/json", "application/vnd.kubernetes.protobuf"
_PIECE = 1 << 16


class Answer:
    """`received`: bytes of the body as they came, compressed perhaps."""

    def __init__(self, status: int, headers: Mapping[str, str], raw: bytes) -> None:
        self.status = status
        self.headers = headers
        self.received = len(raw)
        self._raw = raw

    def document(self) -> Any:
        raw = self._raw
        if self.headers.get("content-encoding") == "gzip":
            raw = zlib.decompress(raw, 16 + zlib.MAX_WBITS)
        return json.loads(raw)


class Connection:
    """One that is kept: for lists and for what changes objects."""

    def __init__(self, server: Server) -> None:
        self._server = server
        self._reader: asyncio.StreamReader
        self._writer: asyncio.StreamWriter

    async def __aenter__(self) -> Connection:
        self._reader, self._writer = await asyncio.open_connection(
            "127.0.0.1", self._server.port, ssl=self._server.context, limit=1 << 20
        )
        return self

    async def __aexit__(self, *_: object) -> None:
        self._writer.transport.abort()

    async def ask(
        self,
        path: str,
        *,
        accept: str = JSON,
        gzip: bool = False,
        method: str = "GET",
        body: Any = None,
        kind: str = JSON,
    ) -> Answer:
        sent = b"" if body is None else json.dumps(body).encode()
        headers = {
            "Host": "localhost",
            "Authorization": f"Bearer {TOKEN}",
            "Accept": accept,
            "User-Agent": "ebpf-lb",
            **({"Accept-Encoding": "gzip"} if gzip else {}),
            **({"Content-Type": kind, "Content-Length": str(len(sent))} if sent else {}),
        }
        lines = [
            f"{method} {path} HTTP/1.1",
            *(f"{name}: {text}" for name, text in headers.items()),
        ]
        self._writer.write("\r\n".join(lines).encode() + b"\r\n\r\n" + sent)
        status, found = await self._head()
        if found.get("transfer-encoding") != "chunked":
            raw = await self._reader.readexactly(int(found.get("content-length", "0")))
        else:
            raw = b"".join([piece async for piece in self._pieces()])
        return Answer(status, found, raw)

    async def watch(self, path: str, accept: str) -> None:
        """Returns when the server has accepted it; `received` counts what comes then."""
        self._writer.write(
            f"GET {path} HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {TOKEN}\r\n"
            f"Accept: {accept}\r\nUser-Agent: ebpf-lb\r\n\r\n".encode()
        )
        status, _ = await self._head()
        if status != 200:
            raise RuntimeError(f"{path} is refused with status {status}")

    async def count(self, counts: list[int], number: int) -> None:
        """Adds what comes to the counts, until it is cancelled."""
        while piece := await self._reader.read(_PIECE):
            counts[number] += len(piece)

    async def until(self, end: bytes) -> int:
        """Bytes until this was in what came."""
        received, rest = 0, b""
        while piece := await self._reader.read(_PIECE):
            received += len(piece)
            rest = rest[-len(end) :] + piece
            if end in rest:
                return received
        raise RuntimeError("the server has ended the watch")

    async def _head(self) -> tuple[int, dict[str, str]]:
        status = int((await self._reader.readline()).split()[1])
        headers = {}
        while line := (await self._reader.readline()).strip():
            name, _, text = line.decode().partition(":")
            headers[name.lower()] = text.strip().lower()
        return status, headers

    async def _pieces(self) -> Any:
        while size := int(await self._reader.readline(), 16):
            yield await self._reader.readexactly(size)
            await self._reader.readline()
        await self._reader.readline()

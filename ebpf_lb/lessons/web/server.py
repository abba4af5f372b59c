"""What is served where. All work is done in threads, since it waits for processes and packets."""

import asyncio
import json
import secrets
from collections.abc import Callable
from pathlib import Path
from typing import Any

from aiohttp import web

from ebpf_lb.errors import UserError
from ebpf_lb.lab.cluster import Lab
from ebpf_lb.lessons.web import guard, trace
from ebpf_lb.lessons.web.actions import ACTIONS, BadRequestError
from ebpf_lb.lessons.web.live import Live

ADDRESS = "127.0.0.1"
_STATIC = Path(__file__).with_name("static")
_LARGEST_BODY = 1 << 16
_ALIVE_EVERY_S = 15.0
Json = dict[str, Any]


class NoPortError(UserError):
    """The page cannot be served there."""


class Page:
    """The page of one lab. `token`: what its link has, and nobody else."""

    def __init__(self, lab: Lab, port: int) -> None:
        self._lab = lab
        self.port = port
        self.token = secrets.token_urlsafe(24)
        self._live = Live(lab)
        self._capturing = asyncio.Lock()

    @property
    def url(self) -> str:
        return f"http://{ADDRESS}:{self.port}/#{self.token}"

    async def serve(self, ready: Callable[[str], None]) -> None:
        """Until the lab is gone, or for ever. `ready` is told the link. Raises NoPortError."""
        runner = web.AppRunner(self._application(), shutdown_timeout=1, access_log=None)
        await runner.setup()
        try:
            site = web.TCPSite(runner, ADDRESS, self.port)
            try:
                await site.start()
            except OSError as error:
                raise NoPortError(
                    f"port {self.port} cannot be used ({error.strerror}): choose another by --port"
                ) from None
            self.port = runner.addresses[0][1]
            self._live.start()
            ready(self.url)
            await self._live.gone.wait()
        finally:
            await runner.cleanup()

    def _application(self) -> web.Application:
        app = web.Application(
            middlewares=[guard.guard(lambda: self.port, self.token), _errors],
            client_max_size=_LARGEST_BODY,
        )
        app.on_response_prepare.append(guard.add_headers)
        app.router.add_get("/", self._index)
        app.router.add_static("/static/", _STATIC)
        app.router.add_get("/api/scenes", self._scenes)
        app.router.add_post("/api/request", self._request)
        app.router.add_post("/api/{action}", self._act)
        return app

    async def _index(self, _request: web.Request) -> web.FileResponse:
        return web.FileResponse(_STATIC / "index.html")

    async def _scenes(self, request: web.Request) -> web.StreamResponse:
        """Server-sent events: the scene, and each that follows."""
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        scenes = self._live.scenes()
        waiting = asyncio.ensure_future(anext(scenes, None))
        try:
            while True:
                done, _ = await asyncio.wait([waiting], timeout=_ALIVE_EVERY_S)
                if not done:
                    await response.write(b": still here\n\n")
                    continue
                scene = waiting.result()
                if scene is None:
                    return response
                await response.write(f"data: {json.dumps(scene)}\n\n".encode())
                waiting = asyncio.ensure_future(anext(scenes, None))
        except ConnectionError:
            return response  # the page was closed
        finally:
            waiting.cancel()

    async def _request(self, request: web.Request) -> web.Response:
        asked = await _body(request)
        async with self._capturing:
            return web.json_response(await asyncio.to_thread(trace.send, self._lab, asked))

    async def _act(self, request: web.Request) -> web.Response:
        action = ACTIONS.get(request.match_info["action"])
        if action is None:
            raise web.HTTPNotFound
        await asyncio.to_thread(action, self._lab, await _body(request))
        await asyncio.to_thread(self._live.look)
        return web.json_response({})


async def _body(request: web.Request) -> Json:
    try:
        body = await request.json()
    except ValueError:
        raise BadRequestError("a request's body must be JSON") from None
    if not isinstance(body, dict):
        raise BadRequestError("a request's body must be a JSON object")
    return body


@web.middleware
async def _errors(request: web.Request, handler: guard.Handler) -> web.StreamResponse:
    """What the user can mend reaches the page as one sentence."""
    try:
        return await handler(request)
    except UserError as error:
        return web.json_response({"error": str(error)}, status=400)

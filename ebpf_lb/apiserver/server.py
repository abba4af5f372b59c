"""One server: registry, controllers, sockets, and their beginning and end."""

import asyncio
import contextlib
import ipaddress
import logging
import secrets
import signal
import ssl
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from aiohttp import web

from ebpf_lb.apiserver.bootstrap import create_defaults, make_registry
from ebpf_lb.apiserver.certificates import ensure_certificates, write_private
from ebpf_lb.apiserver.controllers import start_controllers
from ebpf_lb.apiserver.http import Api
from ebpf_lb.apiserver.journal import Journal
from ebpf_lb.apiserver.store import Store

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class ServerSettings:
    """`folder` holds everything that lasts: token, certificates, journal."""

    folder: Path
    addresses: Sequence[str]
    port: int
    unix_socket: Path | None
    service_cidrs: Sequence[str]
    node_ports: tuple[int, int] = (30000, 32767)
    watch_history: int = 10_000
    bookmark_interval_s: float = 60.0


async def serve(settings: ServerSettings) -> None:
    """Runs until SIGTERM or SIGINT. OSError if an address cannot be bound."""
    folder = settings.folder
    folder.mkdir(parents=True, exist_ok=True)
    token = _ensure_token(folder / "token")
    names = ("localhost", "kubernetes", "kubernetes.default", "kubernetes.default.svc")
    service_addresses = [str(ipaddress.ip_network(text)[1]) for text in settings.service_cidrs]
    ensure_certificates(
        folder, [*settings.addresses, *service_addresses, "127.0.0.1", "::1"], names
    )
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)

    journal = Journal(folder / "state.sqlite")
    store = Store(settings.watch_history)
    registry = make_registry(store, settings.node_ports)
    controllers = start_controllers(registry)
    store.restore(*journal.read())
    store.journal = journal.write
    create_defaults(registry, settings.service_cidrs, settings.addresses, settings.port)
    api = Api(registry, token, settings.bookmark_interval_s)
    async with contextlib.AsyncExitStack() as stack:
        stack.callback(journal.close)
        for task in controllers:
            stack.callback(task.cancel)
        await _listen(api, settings, stack)
        log.info("ready at %s, port %d", ", ".join(settings.addresses), settings.port)
        await stop.wait()


async def _listen(api: Api, settings: ServerSettings, stack: contextlib.AsyncExitStack) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(settings.folder / "server.crt", settings.folder / "server.key")
    tls = await _runner(api.application(authenticate=True), stack)
    for address in settings.addresses:
        site = web.TCPSite(tls, address, settings.port, ssl_context=context, reuse_address=True)
        await site.start()
    if settings.unix_socket:
        path = settings.unix_socket
        path.unlink(missing_ok=True)
        local = await _runner(api.application(authenticate=False), stack)
        # Bound under another name first: the socket appears with its rights and listening.
        aside = path.with_name(path.name + ".new")
        aside.unlink(missing_ok=True)
        await web.UnixSite(local, aside).start()
        aside.chmod(0o600)
        aside.rename(path)
        stack.callback(path.unlink, missing_ok=True)


async def _runner(application: web.Application, stack: contextlib.AsyncExitStack) -> web.AppRunner:
    # Watches never end by themselves: nothing to wait for at shutdown.
    runner = web.AppRunner(
        application, access_log=None, shutdown_timeout=0.05, handler_cancellation=True
    )
    await runner.setup()
    stack.push_async_callback(runner.cleanup)
    return runner


def _ensure_token(path: Path) -> str:
    if not path.exists():
        write_private(path, secrets.token_urlsafe(32).encode())
    return path.read_text().strip()

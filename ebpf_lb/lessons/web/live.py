"""The lab as it is, and every change of it.

A thread for each kind of object follows the API server, one more asks the nodes, since nobody tells
when an agent ends. The page's requests wait for changes in asyncio's loop."""

import asyncio
import contextlib
import logging
import threading
import time
from collections.abc import AsyncIterator, Callable
from typing import Any

from ebpf_lb.apiserver.kinds import DEPLOYMENT, ENDPOINT_SLICE, NODE, POD, SERVICE
from ebpf_lb.errors import UserError
from ebpf_lb.lab.cluster import Lab
from ebpf_lb.lab.names import client_interfaces, clients
from ebpf_lb.lab.objects.follow import Mirror, News, follow_each
from ebpf_lb.lab.state import State
from ebpf_lb.lab.status import agent_state
from ebpf_lb.lessons.web import routes, scene

Json = dict[str, Any]
_PATHS = {
    kind.collection_path(None): kind.plural
    for kind in (NODE, POD, SERVICE, ENDPOINT_SLICE, DEPLOYMENT)
}
_LOOK_AT_NODES_EVERY_S = 2.0
_TOGETHER_S = 0.05  # what changes within this is one change


class Live:
    """Raises NotUpError where there is no lab."""

    def __init__(self, lab: Lab) -> None:
        self._lab = lab
        options = lab.options
        self._clients = {
            "client" if number == 1 else name: [
                str(interface.ip) for interface in client_interfaces(number, options.families)
            ]
            for number, name in enumerate(clients(options), start=1)
        }
        self._objects = Mirror()
        self._nodes: dict[str, scene.NodeState] = {}
        self._broken: dict[str, tuple[str, ...]] = {}  # node -> routes that it lacks
        self._lock = threading.Lock()
        self._changed = asyncio.Event()
        self.gone = asyncio.Event()
        """The lab is no longer there."""

    def start(self) -> None:
        """From within the loop that will ask for scenes."""
        self._loop = asyncio.get_running_loop()
        # its complaints while a lab is taken down concern nobody
        logging.getLogger(follow_each.__module__).setLevel(logging.ERROR)
        follow_each(self._lab.client, _PATHS, self._put)
        threading.Thread(target=self._look_at_nodes, daemon=True).start()

    async def scenes(self) -> AsyncIterator[Json]:
        """The present one as soon as all is known, and then each that differs from the last."""
        last: Json | None = None
        while not self.gone.is_set():
            changed = self._changed
            present = self._scene()
            if present is not None and present != last:
                last = present
                yield present
            await changed.wait()
            await asyncio.sleep(_TOGETHER_S)

    def look(self, *, at_routes: bool = True) -> None:
        """Asks the nodes at once. Raises NotUpError."""
        kept = State.load(self._lab.names)
        found = {}
        for node in self._lab.nodes():
            if at_routes:
                self._broken[node.name] = routes.broken(self._lab, node)
            found[node.name] = scene.NodeState(agent_state(kept, node), self._broken[node.name])
        with self._lock:
            self._nodes = found
        self._tell()

    def _scene(self) -> Json | None:
        with self._lock:
            if not self._objects.knows(_PATHS) or not self._nodes:
                return None
            objects = {plural: self._objects.of(path) for path, plural in _PATHS.items()}
            return scene.draw(self._lab.name, self._clients, self._nodes, objects)

    # --- in threads of their own

    def _put(self, path: str, news: News) -> None:
        with self._lock:
            self._objects.take(path, news)
        self._tell()

    def _look_at_nodes(self) -> None:
        while True:
            try:
                self.look(at_routes=not self._nodes)  # later, a click here breaks or mends them
            except (UserError, OSError):
                if not self._lab.running:
                    self._in_loop(self.gone.set)
                    self._tell()
                    return
            time.sleep(_LOOK_AT_NODES_EVERY_S)

    def _tell(self) -> None:
        self._in_loop(self._wake)

    def _wake(self) -> None:
        """Whoever waits is woken; whoever asks from now on waits for the next change."""
        changed, self._changed = self._changed, asyncio.Event()
        changed.set()

    def _in_loop(self, call: Callable[[], None]) -> None:
        with contextlib.suppress(RuntimeError):  # the loop is closed: the page ends
            self._loop.call_soon_threadsafe(call)

"""The work queue that all controllers share."""

import asyncio
import logging
from abc import ABC, abstractmethod
from collections.abc import Hashable
from typing import Any

from ebpf_lb.apiserver.errors import StatusError
from ebpf_lb.apiserver.registry import Registry
from ebpf_lb.apiserver.store import Change

log = logging.getLogger(__name__)

_RETRY_AFTER_S = 1.0


class Controller(ABC):
    """Subclasses say in `observe` which keys a change concerns, and in `reconcile` what to do."""

    def __init__(self, registry: Registry) -> None:
        self.registry = registry
        self.store = registry.store
        self._dirty: dict[Any, None] = {}  # a set that keeps its order
        self._wake = asyncio.Event()
        self.store.subscribe(self.observe)

    @abstractmethod
    def observe(self, change: Change) -> None:
        """Called inside of the write: may only enqueue."""

    @abstractmethod
    def reconcile(self, key: Any) -> None:
        """Makes the world right for `key`. Does nothing if it is."""

    def enqueue(self, key: Hashable) -> None:
        self._dirty[key] = None
        self._wake.set()

    def drain(self) -> bool:
        """Reconciles every dirty key once; False if there was none. (Tests call it directly.)"""
        keys, self._dirty = self._dirty, {}
        for key in keys:
            self._reconcile_safely(key)
        return bool(keys)

    async def run(self) -> None:
        while True:
            await self._wake.wait()
            self._wake.clear()
            keys, self._dirty = self._dirty, {}
            for key in keys:
                self._reconcile_safely(key)
                await asyncio.sleep(0)  # requests go first

    def _reconcile_safely(self, key: Any) -> None:
        try:
            self.reconcile(key)
        except StatusError as error:
            if "being terminated" in error.message:
                return  # nothing is made any more in a namespace that goes
            log.warning("%s: %s: %s", type(self).__name__, key, error)
            self._retry(key)
        except Exception:  # one bad object must not end the controller
            log.exception("%s: %s", type(self).__name__, key)
            self._retry(key)

    def _retry(self, key: Any) -> None:
        asyncio.get_running_loop().call_later(_RETRY_AFTER_S, self.enqueue, key)

"""What an object owns goes with it (`metadata.ownerReferences`)."""

from collections import defaultdict

from ebpf_lb.apiserver.controllers.base import Controller
from ebpf_lb.apiserver.kinds import Kind
from ebpf_lb.apiserver.registry import Registry
from ebpf_lb.apiserver.store import Change, Stored


def _owners(stored: Stored) -> set[str]:
    return {reference.get("uid", "") for reference in stored.metadata.get("ownerReferences", ())}


class GarbageCollector(Controller):
    def __init__(self, registry: Registry) -> None:
        self._alive: set[str] = set()
        self._owned: defaultdict[str, set[tuple[Kind, str, str]]] = defaultdict(set)
        super().__init__(registry)

    def observe(self, change: Change) -> None:
        for stored in filter(None, (change.before,)):
            for uid in _owners(stored):
                self._owned[uid].discard((stored.kind, stored.namespace, stored.name))
        if change.after:
            self._alive.add(change.after.uid)
            for uid in _owners(change.after):
                self._owned[uid].add((change.after.kind, change.after.namespace, change.after.name))
                if uid not in self._alive:
                    self.enqueue(uid)
        elif change.before:
            self._alive.discard(change.before.uid)
            self.enqueue(change.before.uid)

    def reconcile(self, uid: str) -> None:
        """All owners of an object must be gone before it goes."""
        if uid in self._alive:
            return
        for kind, namespace, name in sorted(
            self._owned.pop(uid, ()), key=lambda item: (item[0].plural, *item[1:])
        ):
            stored = self.store.get(kind, namespace, name)
            if stored and not stored.terminating and not _owners(stored) & self._alive:
                self.registry.delete(kind, namespace, name)

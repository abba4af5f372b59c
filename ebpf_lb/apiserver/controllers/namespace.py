"""A namespace that is being deleted: its contents go, then it does."""

from ebpf_lb.apiserver.controllers.base import Controller
from ebpf_lb.apiserver.kinds import KINDS, NAMESPACE, POD
from ebpf_lb.apiserver.store import Change


class NamespaceController(Controller):
    def observe(self, change: Change) -> None:
        if change.subject.kind is NAMESPACE:
            self.enqueue(change.subject.name)
        elif change.after is None and change.subject.namespace:
            self.enqueue(change.subject.namespace)

    def reconcile(self, name: str) -> None:
        namespace = self.store.get(NAMESPACE, "", name)
        if namespace is None or not namespace.terminating:
            return
        # Pods last, else their controllers would be told of losses that they cannot make good.
        kinds = sorted((kind for kind in KINDS if kind.namespaced), key=lambda kind: kind is POD)
        for kind in kinds:
            for stored in self.store.objects(kind, name):
                # a pod that terminates for longer than its own grace period has that much from now
                if not stored.terminating or kind is POD:
                    self.registry.delete(kind, name, stored.name)
        if not any(self.store.objects(kind, name) for kind in kinds):
            self.registry.finish_namespace(namespace)

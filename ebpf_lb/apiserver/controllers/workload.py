"""What controllers have in common whose objects own pods."""

from abc import abstractmethod
from typing import ClassVar

from ebpf_lb.apiserver.controllers.base import Controller
from ebpf_lb.apiserver.controllers.pods import owner_of
from ebpf_lb.apiserver.kinds import POD, Kind
from ebpf_lb.apiserver.store import Change, Stored


class WorkloadController(Controller):
    """Looks at an object of its kind whenever that or one of its pods has changed."""

    kind: ClassVar[Kind]

    def observe(self, change: Change) -> None:
        subject = change.subject
        if subject.kind is self.kind:
            self.enqueue((subject.namespace, subject.name))
        elif subject.kind is POD and (owner := owner_of(subject, self.kind)):
            self.enqueue(owner)

    def reconcile(self, key: tuple[str, str]) -> None:
        workload = self.store.get(self.kind, *key)
        if workload is not None and not workload.terminating:
            self.settle(workload)

    @abstractmethod
    def settle(self, workload: Stored) -> None:
        """The next step towards the pods that it wants, and its status."""

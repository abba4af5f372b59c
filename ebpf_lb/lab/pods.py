"""The pods that run: one small file each, written by the kubelet, read by everybody else."""

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Self

from ebpf_lb.errors import UserError
from ebpf_lb.lab.names import LabNames
from ebpf_lb.lab.processes import Place, Process
from ebpf_lb.lab.state import write_whole


class NoSuchPodError(UserError):
    """No pod of this name runs, or more than one."""


@dataclass(frozen=True, slots=True)
class Pod:
    """A pod on its node. host_network: it has no namespace of its own, `netns` is the node's.

    environment: of its processes. files: theirs in place of the machine's. pid, start: its server's
    process (processes.Process)."""

    namespace: str
    name: str
    uid: str
    node: str
    addresses: tuple[str, ...]
    host_network: bool
    netns: Path
    cgroup: Path
    environment: dict[str, str]
    files: dict[str, str]
    pid: int
    start: int

    @property
    def place(self) -> Place:
        """Where a command in it runs."""
        return Place(self.netns, self.cgroup, self.environment, self.files)

    @property
    def process(self) -> Process:
        return Process(self.pid, self.start)

    def save(self, names: LabNames) -> None:
        stored = {**asdict(self), "netns": str(self.netns), "cgroup": str(self.cgroup)}
        write_whole(record(names, self.namespace, self.name), json.dumps(stored, indent=1) + "\n")

    @classmethod
    def load(cls, path: Path) -> Self:
        stored: dict[str, Any] = json.loads(path.read_text())
        stored["addresses"] = tuple(stored["addresses"])
        stored["netns"], stored["cgroup"] = Path(stored["netns"]), Path(stored["cgroup"])
        return cls(**stored)


def record(names: LabNames, namespace: str, name: str) -> Path:
    """A pod's file; no name in Kubernetes has an underscore."""
    return names.pod_records / f"{namespace}_{name}.json"


def running(names: LabNames) -> list[Pod]:
    """All of them, by namespace and name."""
    if not names.pod_records.is_dir():
        return []
    pods = []
    for path in names.pod_records.glob("*.json"):
        try:
            pods.append(Pod.load(path))
        except FileNotFoundError:
            continue  # removed meanwhile
    return sorted(pods, key=lambda pod: (pod.namespace, pod.name))


def find(names: LabNames, wanted: str) -> Pod:
    """The pod called NAME or NAMESPACE/NAME; NoSuchPodError if there is none, or several."""
    found = [pod for pod in running(names) if wanted in (pod.name, f"{pod.namespace}/{pod.name}")]
    match found:
        case [pod]:
            return pod
        case []:
            raise NoSuchPodError(
                f"lab {names.name!r} has no host or running pod {wanted!r}: "
                "`ebpf-lb lab status` lists them"
            )
    several = ", ".join(f"{pod.namespace}/{pod.name}" for pod in found)
    raise NoSuchPodError(f"several pods are called {wanted!r}: choose one of {several}")

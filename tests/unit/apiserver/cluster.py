"""A cluster without a network: registry and controllers, and a kubelet that only says so."""

import random
from collections.abc import Iterator
from typing import Any

from ebpf_lb.apiserver.bootstrap import create_defaults, make_registry
from ebpf_lb.apiserver.controllers import CONTROLLERS
from ebpf_lb.apiserver.kinds import ENDPOINT_SLICE, NODE, POD, SERVICE, Kind
from ebpf_lb.apiserver.registry import DeleteOptions, Registry
from ebpf_lb.apiserver.store import Store, Stored

Json = dict[str, Any]

DUAL = ("10.96.0.0/16", "fd00:10:96::/112")


def registry(service_cidrs: tuple[str, ...] = DUAL, history_limit: int = 10_000) -> Registry:
    made = make_registry(Store(history_limit), rng=random.Random(1))
    create_defaults(made, service_cidrs, ["172.30.0.10"], 6443)
    return made


def service(name: str = "web", **spec: Any) -> Json:
    return {"metadata": {"name": name}, "spec": {"ports": [{"port": 80}]} | spec}


def deployment(name: str = "web", replicas: int = 3, **pod_spec: Any) -> Json:
    container = {"name": "c", "image": "i", "ports": [{"containerPort": 80, "name": "http"}]}
    return {
        "metadata": {"name": name},
        "spec": {
            "replicas": replicas,
            "selector": {"matchLabels": {"app": name}},
            "template": {
                "metadata": {"labels": {"app": name}},
                "spec": {"containers": [container]} | pod_spec,
            },
        },
    }


class Cluster:
    """Nodes node1…, all in zones of their own. `settle` runs everything until nothing changes;
    kubelet=False leaves new pods pending and terminating ones terminating."""

    def __init__(self, nodes: int = 3) -> None:
        self.registry = make_registry(Store(), rng=random.Random(1))
        self.store = self.registry.store
        self._controllers = [controller(self.registry) for controller in CONTROLLERS]
        create_defaults(self.registry, DUAL, ["172.30.0.10"], 6443)
        self._numbers = iter(range(2, 10_000))
        for number in range(1, nodes + 1):
            labels = {
                "kubernetes.io/hostname": f"node{number}",
                "topology.kubernetes.io/zone": f"zone{number}",
            }
            self.create(NODE, {"metadata": {"name": f"node{number}", "labels": labels}}, "")

    def create(self, kind: Kind, object_: Json, namespace: str = "default") -> Stored:
        return self.registry.create(kind, namespace, object_)

    def update(self, kind: Kind, name: str, change: Json) -> Stored:
        """By merge patch."""
        return self.registry.patch(kind, "default", name, "application/merge-patch+json", change)

    def settle(self, *, kubelet: bool = True) -> None:
        for _ in range(1000):
            busy = [controller.drain() for controller in self._controllers]
            if kubelet:
                busy += [self._run(pod) for pod in self.store.objects(POD)]
            if not any(busy):
                return
        raise AssertionError("the controllers never come to rest")

    def step(self) -> None:
        """Every controller once, the kubelet not at all."""
        for controller in self._controllers:
            controller.drain()

    def _run(self, pod: Stored) -> bool:
        if pod.terminating:
            self.registry.delete(POD, pod.namespace, pod.name, DeleteOptions(grace_s=0))
            return True
        if pod.spec.get("nodeName") and pod.status.get("phase") == "Pending":
            self.run_pod(pod)
            return True
        return False

    def run_pod(self, pod: Stored, *, ready: bool = True) -> None:
        number = next(self._numbers)
        addresses = [f"10.244.{number >> 8}.{number & 255}", f"fd00:10:244::{number:x}"]
        status = {
            "phase": "Running",
            "podIP": addresses[0],
            "podIPs": [{"ip": address} for address in addresses],
            "conditions": [{"type": "Ready", "status": str(ready)}],
        }
        self.registry.set_status(self.registry.get(POD, pod.namespace, pod.name), status)

    def pods(self, *, active: bool = True) -> list[Stored]:
        return [pod for pod in self.store.objects(POD) if not (active and pod.terminating)]

    def slices(self, name: str = "web", family: str = "IPv4") -> list[Stored]:
        return [
            slice_
            for slice_ in self.store.objects(ENDPOINT_SLICE)
            if slice_.labels.get("kubernetes.io/service-name") == name
            and slice_.object["addressType"] == family
        ]

    def endpoints(self, name: str = "web", family: str = "IPv4") -> list[Json]:
        return list(self._endpoints(name, family))

    def _endpoints(self, name: str, family: str) -> Iterator[Json]:
        for slice_ in self.slices(name, family):
            yield from slice_.object["endpoints"] or ()

    def addresses(self, service_name: str) -> list[str]:
        addresses: list[str] = self.registry.get(SERVICE, "default", service_name).spec[
            "clusterIPs"
        ]
        return addresses

"""The node with the real kube-proxy, in its nftables mode, fed by the lab's API server.

The server listens on the node's own loopback. kube-proxy writes rules when it likes, so each change
ends with one of a Service that nobody asks, twice: when its second rules are there, all that
belongs to the first ones has been done.
"""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from ebpf_lb.lab import namespaces
from ebpf_lb.lab.objects.client import Client
from ebpf_lb.model.values import Family
from ebpf_lb.plan.forwarding import Forwarding
from tests.api.lab_server import LabServer
from tests.differential import cluster
from tests.differential.cluster import State
from tests.differential.compare import Peers
from tests.differential.netfilter import Netfilter
from tests.differential.wire import WORLD, Wire, one_cpu, wired

NODE = "node1"
_SERVICES = "/api/v1/namespaces/default/services"
_SLICES = "/apis/discovery.k8s.io/v1/namespaces/default/endpointslices"
_WITHIN_S = 60
_A_WHILE_S = 0.02
_SPARE_PORT = 30090
Json = dict[str, Any]


class KubeProxy:
    """One proxy of a node."""

    def __init__(self, wire: Wire, api: Client) -> None:
        self._wire, self._api = wire, api
        self._held: dict[str, Json] = {}
        self._marks = 0

    def begin(self, family: Family) -> None:
        """Of both families: what is not asked does no harm."""
        for path in sorted(self._held):
            self._api.delete(path)
        self._held.clear()
        self._wait()

    def program(self, state: State, plan: Sequence[Forwarding]) -> None:
        services, slices = cluster.objects(state)
        services = [_complete(one) for one in services]
        for spare, one in enumerate(services):  # two Services may exchange their nodePorts
            at = _path(_SERVICES, one)
            if at in self._held and one["spec"]["ports"] != self._held[at]["spec"]["ports"]:
                ports = [{**each, "nodePort": _SPARE_PORT + spare} for each in one["spec"]["ports"]]
                self._api.patch(at, {"spec": {"ports": ports}})
        for one in services:
            self._put(_SERVICES, one)
        for one in slices:
            self._put(_SLICES, {"apiVersion": "discovery.k8s.io/v1", **one})
        self._wait()

    def _put(self, path: str, manifest: Json) -> None:
        at = _path(path, manifest)
        if self._held.get(at) == manifest:
            return
        if at in self._held:
            self._api.patch(at, manifest)
        else:
            self._api.create(path, manifest)
            if "status" in manifest:
                self._api.patch(f"{at}/status", {"status": manifest["status"]})
        self._held[at] = manifest

    def _wait(self) -> None:
        for _ in range(2):
            self._marks += 1
            port = 1 + self._marks % 60000
            for one in _marks(port):
                self._mark(*one)
            end = time.monotonic() + _WITHIN_S
            while not all(f"{end_}:{port}" in self._rules() for end_ in _MARKED.values()):
                assert time.monotonic() < end, "kube-proxy writes nothing"
                time.sleep(_A_WHILE_S)

    def _mark(self, path: str, manifest: Json) -> None:
        at = _path(path, manifest)
        if self._marks == 1:
            self._api.create(path, manifest)
        else:
            self._api.patch(at, manifest)

    def _rules(self) -> str:
        with namespaces.entered(self._wire.node.path):
            done = subprocess.run(["nft", "list", "ruleset"], capture_output=True, text=True)
        return done.stdout


def _path(collection: str, manifest: Json) -> str:
    return f"{collection}/{manifest['metadata']['name']}"


def _complete(service: Json) -> Json:
    spec = {
        "sessionAffinity": "None", "ipFamilies": ["IPv4", "IPv6"],
        "ipFamilyPolicy": "RequireDualStack", **service["spec"],
    }  # fmt: skip
    return {"apiVersion": "v1", **service, "spec": spec}


def _marks(port: int) -> Iterator[tuple[str, Json]]:
    """The endpoints before their Service: once its port is there, they are known."""
    for version, address in ((4, "10.251.0.1"), (6, "fd00:10:251::1")):
        yield _SLICES, {
            "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
            "metadata": {
                "namespace": "default", "name": f"mark{version}",
                "labels": {"kubernetes.io/service-name": "mark"},
            },
            "addressType": f"IPv{version}",
            "ports": [{"name": "p", "protocol": "TCP", "port": port}],
            "endpoints": [{"addresses": [address], "nodeName": "node2"}],
        }  # fmt: skip
    yield _SERVICES, _complete({
        "kind": "Service", "metadata": {"namespace": "default", "name": "mark"},
        "spec": {
            "clusterIP": "10.96.99.99", "clusterIPs": ["10.96.99.99", "fd00:10:96::9999"],
            "ports": [{"name": "p", "protocol": "TCP", "port": port}],
        },
    })  # fmt: skip


_MARKED = {Family.IPV4: "10.251.0.1", Family.IPV6: "[fd00:10:251::1]"}


@contextmanager
def kube_proxy(wire: Wire, program: str) -> Iterator[KubeProxy]:
    """`program`: kube-proxy's."""
    with TemporaryDirectory(prefix="ebpf-lb-kube-proxy-") as name:
        folder = Path(name)
        with namespaces.entered(wire.node.path):
            server = LabServer(folder)
        try:
            _register(server.local)
            config, log = folder / "config", folder / "log"
            config.write_text(json.dumps(_config(server.kubeconfig)))
            with log.open("w") as said, namespaces.entered(wire.node.path):
                process = subprocess.Popen(
                    [program, "--config", config, "--hostname-override", NODE],
                    stdout=said, stderr=said,
                )  # fmt: skip
            try:
                yield KubeProxy(wire, server.local)
            except AssertionError:
                print(log.read_text()[-2000:])
                raise
            finally:
                process.terminate()
                process.wait()
        finally:
            server.close()


def _register(api: Client) -> None:
    api.create("/api/v1/nodes", {"apiVersion": "v1", "kind": "Node", "metadata": {"name": NODE}})
    addresses = [{"type": "InternalIP", "address": WORLD[family].node} for family in Family]
    api.patch(f"/api/v1/nodes/{NODE}/status", {"status": {"addresses": addresses}})


def _config(kubeconfig: Path) -> Json:
    return {
        "apiVersion": "kubeproxy.config.k8s.io/v1alpha1",
        "kind": "KubeProxyConfiguration",
        "mode": "nftables",
        "clientConnection": {"kubeconfig": str(kubeconfig)},
        "clusterCIDR": ",".join(WORLD[family].cluster_network for family in Family),
        "nftables": {"minSyncPeriod": "10ms", "syncPeriod": "30s"},
        # the tables' sizes belong to the machine, not to a network namespace
        "conntrack": {
            "maxPerCore": 0, "min": 0, "tcpEstablishedTimeout": "0s", "tcpCloseWaitTimeout": "0s",
        },
        "healthzBindAddress": "127.0.0.1:10256",
        "metricsBindAddress": "127.0.0.1:10249",
    }  # fmt: skip


@contextmanager
def rules_and_kube_proxy(name: str, program: str) -> Iterator[Peers]:
    """The rules without any departure of ours, and the real one (`program`)."""
    with (
        wired(f"{name}-a") as ours,
        wired(f"{name}-b") as theirs,
        kube_proxy(theirs, program) as real,
        one_cpu(),
    ):
        yield Peers(ours, theirs, Netfilter(ours, frozenset()), real, ("our rules", "kube-proxy"))

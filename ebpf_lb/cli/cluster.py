"""What the API server says, for commands that tell more where it can be asked and do without where
it cannot."""

import os
import socket
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from ebpf_lb.errors import UserError

if TYPE_CHECKING:
    from ebpf_lb.kube.client import ApiClient

F = TypeVar("F", bound=Callable[..., Any])

_WITHIN_S = 3.0
_SERVICE_NAME = "kubernetes.io/service-name"


def api_options(command: F) -> F:
    """--kubeconfig and --no-api."""
    command = click.option(
        "--no-api", is_flag=True, help="Do not ask the API server: tell what the node knows."
    )(command)
    return click.option(
        "--kubeconfig",
        metavar="FILE",
        envvar=["EBPF_LB_KUBECONFIG", "KUBECONFIG"],
        show_envvar=True,
        help="How to ask the API server, for what the maps do not hold; default: as a pod does.",
    )(command)


def cluster(kubeconfig: str | None, no_api: bool) -> "Cluster":
    return Cluster(kubeconfig, wanted=not no_api)


class Cluster:
    """Each question is answered, or None where the server cannot be asked or knows no such object.
    `problem`: why it cannot be asked; `denied`: what it refused to tell us last; else ""."""

    def __init__(self, kubeconfig: str | None, *, wanted: bool = True) -> None:
        path = kubeconfig.partition(os.pathsep)[0] if kubeconfig else ""
        self._file = Path(path) if path else None
        in_pod = "KUBERNETES_SERVICE_HOST" in os.environ
        self._client: ApiClient | None = None
        self.problem = ""
        self.denied = ""
        self._pods: dict[str, list[Any] | None] = {}
        self._nodes: list[Any] | None = None
        if not wanted:
            self.problem = "--no-api was given"
        elif self._file is None and not in_pod:
            self.problem = "no kubeconfig is named (--kubeconfig FILE)"

    @property
    def node(self) -> str:
        """The name of this node, by which the API server knows it."""
        return os.environ.get("EBPF_LB_NODE_NAME") or socket.gethostname()

    def pod(self, namespace: str, name: str) -> Any:
        return self._get(f"/api/v1/namespaces/{namespace}/pods/{name}")

    def pods_at(self, address: str) -> list[Any] | None:
        """Those whose first address it is."""
        return self._list("/api/v1/pods", {"fieldSelector": f"status.podIP={address}"})

    def pods_on(self, node: str) -> list[Any] | None:
        if node not in self._pods:
            self._pods[node] = self._list(
                "/api/v1/pods", {"fieldSelector": f"spec.nodeName={node}"}
            )
        return self._pods[node]

    def service(self, namespace: str, name: str) -> Any:
        return self._get(f"/api/v1/namespaces/{namespace}/services/{name}")

    def services(self, name: str) -> list[Any] | None:
        """Of this name, in whatever namespace."""
        return self._list("/api/v1/services", {"fieldSelector": f"metadata.name={name}"})

    def slices(self, namespace: str, service: str) -> list[Any] | None:
        path = f"/apis/discovery.k8s.io/v1/namespaces/{namespace}/endpointslices"
        return self._list(path, {"labelSelector": f"{_SERVICE_NAME}={service}"})

    def own_node(self) -> Any:
        return self._get(f"/api/v1/nodes/{self.node}")

    def nodes(self) -> list[Any] | None:
        if self._nodes is None:
            self._nodes = self._list("/api/v1/nodes", {})
        return self._nodes

    def node_of(self, address: bytes) -> str:
        """The node in whose pod network an address is; "" if there is none."""
        from ebpf_lb.kube.parse_node import parse_node

        for raw in self.nodes() or []:
            node = parse_node(raw).value
            if node and any(address in network for network in node.pod_networks):
                return node.name
        return ""

    def _list(self, path: str, query: dict[str, str]) -> list[Any] | None:
        found = self._get(path, query)
        items = found.get("items") if isinstance(found, dict) else None
        return items if isinstance(items, list) else None

    def _get(self, path: str, query: dict[str, str] | None = None) -> Any:
        if self.problem:
            return None
        from ebpf_lb.kube.client import ApiError, connect

        try:
            if self._client is None:
                self._client = connect(self._file)
            return self._client.get(path, query or {}, timeout_s=_WITHIN_S)
        except UserError as error:
            self.problem = str(error).rstrip(".")
        except ApiError as error:
            if error.status in (0, 401):
                self.problem = str(error).rstrip(".")
            elif error.status != 404:
                self.denied = str(error).rstrip(".")
        return None

"""Kubernetes objects as the lab's tests use them."""

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

PROTOCOLS = ("TCP", "UDP", "SCTP")
PORT = 80  # what the tests' pods listen on, by every protocol

Manifest = dict[str, Any]


def deployment(name: str, *, replicas: int = 1, **pod: Any) -> Manifest:
    """Pods with the label `app: NAME`; keywords as `pod_spec` has them."""
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": name},
        "spec": {
            "replicas": replicas,
            "selector": {"matchLabels": {"app": name}},
            "template": {"metadata": {"labels": {"app": name}}, "spec": pod_spec(**pod)},
        },
    }


def pod(name: str, app: str, **spec: Any) -> Manifest:
    """A pod that no controller puts back; keywords as `pod_spec` has them."""
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "labels": {"app": app}},
        "spec": pod_spec(**spec),
    }


def pod_spec(
    *,
    node: str | None = None,
    host_network: bool = False,
    port: int = PORT,
    protocols: Iterable[str] = PROTOCOLS,
) -> Manifest:
    """A server that answers on one port by the given protocols."""
    ports = [{"containerPort": port, "protocol": protocol} for protocol in protocols]
    spec: Manifest = {
        "containers": [{"name": "server", "image": "e2e-test-images/agnhost", "ports": ports}]
    }
    if node:
        spec["nodeName"] = node
    if host_network:
        spec["hostNetwork"] = True
    return spec


def service(
    name: str,
    *,
    app: str | None = None,
    number: int | None = None,
    target_port: int = PORT,
    port: int = 80,
    protocols: Iterable[str] = PROTOCOLS,
    **spec: Any,
) -> Manifest:
    """A Service in both families for the pods of deployment `app` (by default of its own name).

    `number` chooses its addresses: 10.96.100.NUMBER and fd00:10:96::64NN (`cluster_ip`)."""
    if number is not None:
        addresses = [cluster_ip(number, "ipv4"), cluster_ip(number, "ipv6")]
        spec = {"clusterIP": addresses[0], "clusterIPs": addresses, **spec}
    ports = [
        {
            "name": protocol.lower(),
            "protocol": protocol,
            "port": port,
            "targetPort": target_port,
        }
        for protocol in protocols
    ]
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": name},
        "spec": {
            "selector": {"app": app or name},
            "ipFamilyPolicy": "RequireDualStack",
            "ports": ports,
            **spec,
        },
    }


def cluster_ip(number: int, family: str) -> str:
    return f"10.96.100.{number}" if family == "ipv4" else f"fd00:10:96::64{number:02x}"


def in_namespace(namespace: str, objects: Iterable[Mapping[str, Any]]) -> list[Manifest]:
    """The namespace and the objects in it."""
    return [
        {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace}},
        *({**each, "metadata": {**each["metadata"], "namespace": namespace}} for each in objects),
    ]


def write(path: Path, objects: Iterable[Mapping[str, Any]]) -> Path:
    """A file for `lab apply -f`."""
    path.write_text(json.dumps({"apiVersion": "v1", "kind": "List", "items": list(objects)}))
    return path

"""What is in a cluster: Services and their EndpointSlices, as controllers write them."""

from __future__ import annotations

import itertools
import uuid
from datetime import UTC, datetime
from typing import Any

NAMESPACE = "default"
SLICES = f"/apis/discovery.k8s.io/v1/namespaces/{NAMESPACE}/endpointslices"
SERVICES = f"/api/v1/namespaces/{NAMESPACE}/services"
Json = dict[str, Any]
_TRIGGERED = "endpoints.kubernetes.io/last-change-trigger-time"
_MOMENTS = itertools.count(1_800_000_000)


def _address(number: int, pod: int) -> str:
    whole = number * 100 + pod
    return f"10.{128 + (whole >> 16) % 100}.{whole >> 8 & 255}.{whole & 255}"


def service(number: int) -> Json:
    name = f"service-{number}"
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": name, "namespace": NAMESPACE, "labels": {"app": name}},
        "spec": {"selector": {"app": name}, "ports": [{"name": "http", "port": 80,
                 "targetPort": 8080, "protocol": "TCP"}]},
    }  # fmt: skip


def endpoint(number: int, pod: int, *, ready: bool = True) -> Json:
    return {
        "addresses": [_address(number, pod)],
        "conditions": {"ready": ready, "serving": ready, "terminating": False},
        "nodeName": f"node-{(number + pod) % 5000}",
        "zone": f"zone-{'abc'[pod % 3]}",
        "targetRef": {"kind": "Pod", "namespace": NAMESPACE, "uid": str(uuid.UUID(int=pod)),
                      "name": f"service-{number}-6d4cf56db6-{pod:05x}"},
    }  # fmt: skip


def endpoint_slice(number: int, pods: int) -> Json:
    name = f"service-{number}"
    return {
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": {
            "name": f"{name}-x7k2p",
            "namespace": NAMESPACE,
            "labels": {
                "app": name,
                "endpointslice.kubernetes.io/managed-by": "endpointslice-controller.k8s.io",
                "kubernetes.io/service-name": name,
            },
            "annotations": {_TRIGGERED: "2026-01-01T00:00:00Z"},
            "ownerReferences": [{"apiVersion": "v1", "kind": "Service", "name": name,
                                 "uid": str(uuid.UUID(int=number)), "controller": True,
                                 "blockOwnerDeletion": True}],
        },
        "addressType": "IPv4",
        "endpoints": [endpoint(number, pod) for pod in range(pods)],
        "ports": [{"name": "http", "port": 8080, "protocol": "TCP"}],
    }  # fmt: skip


def changed(number: int, pods: int, turn: int) -> Json:
    """A merge patch: one of its pods is not ready, another one each turn; and when that happened,
    which is never the same."""
    moment = datetime.fromtimestamp(next(_MOMENTS), UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    return {
        "metadata": {"annotations": {_TRIGGERED: moment}},
        "endpoints": [endpoint(number, pod, ready=pod != turn % (pods + 1)) for pod in range(pods)],
    }

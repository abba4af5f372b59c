"""Objects as an API server sends them, as far as tests of their parsing need them."""

from typing import Any

META = {"name": "web", "namespace": "default", "creationTimestamp": "2026-01-02T03:04:05Z"}
ANNOTATION = "service.beta.kubernetes.io/load-balancer-source-ranges"


def a_service(metadata: dict[str, Any] | None = None, **spec: Any) -> dict[str, Any]:
    return {
        "metadata": {**META, **(metadata or {})},
        "spec": {"clusterIP": "10.96.0.1", "ports": [{"port": 80}], **spec},
    }


def a_slice(*endpoints: Any, **fields: Any) -> dict[str, Any]:
    return {
        "metadata": {
            "name": "web-1",
            "namespace": "default",
            "labels": {"kubernetes.io/service-name": "web"},
        },
        "addressType": "IPv4",
        "ports": [{"name": "http", "port": 8080, "protocol": "TCP"}],
        "endpoints": list(endpoints),
        **fields,
    }

"""The fixed parts of the objects that clusters by chance are made of."""

from typing import Any

Json = dict[str, Any]


def endpoint_slice(
    service: Json, number: int, family: int, ports: list[Json], endpoints: list[Json]
) -> Json:
    """The Service's slice of this number; family: 4 or 6."""
    return {
        "kind": "EndpointSlice",
        "metadata": {
            "namespace": service["metadata"]["namespace"],
            "name": f"slice{number}",
            "labels": {"kubernetes.io/service-name": service["metadata"]["name"]},
        },
        "addressType": f"IPv{family}",
        "ports": ports,
        "endpoints": endpoints,
    }

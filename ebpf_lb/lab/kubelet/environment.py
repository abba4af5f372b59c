"""The environment of a pod's processes: what a Service's name, address and ports were when the pod
was started, then what its manifest says.

Upstream: pkg/kubelet/envvars. A Service that comes later is not in it, which is what DNS is for.
"""

import re
from collections.abc import Iterable, Mapping
from typing import Any

Json = dict[str, Any]


def variables(pod: Json, services: Iterable[Json], addresses: Iterable[str]) -> dict[str, str]:
    """services: those of the pod's namespace and default/kubernetes; of these, all but the last
    only where the pod wants `enableServiceLinks` (the default)."""
    found: dict[str, str] = {"HOSTNAME": pod["spec"].get("hostname") or pod["metadata"]["name"]}
    links = pod["spec"].get("enableServiceLinks", True)
    for service in services:
        address = service["spec"].get("clusterIP", "None")
        if address not in ("", "None") and (links or _is_kubernetes(service)):
            found |= _of_service(service, address)
    fields = _fields(pod, list(addresses))
    for variable in pod["spec"]["containers"][0].get("env") or ():
        reference = ((variable.get("valueFrom") or {}).get("fieldRef") or {}).get("fieldPath")
        value = fields.get(reference, "") if reference else variable.get("value", "")
        found[variable["name"]] = _expand(value, found)
    return found


def _is_kubernetes(service: Json) -> bool:
    metadata = service["metadata"]
    return (metadata["namespace"], metadata["name"]) == ("default", "kubernetes")


def _of_service(service: Json, address: str) -> dict[str, str]:
    prefix = _shout(service["metadata"]["name"])
    ports = service["spec"]["ports"]
    found = {f"{prefix}_SERVICE_HOST": address, f"{prefix}_SERVICE_PORT": str(ports[0]["port"])}
    for port in ports:
        if port.get("name"):
            found[f"{prefix}_SERVICE_PORT_{_shout(port['name'])}"] = str(port["port"])
    # the form of Docker's links
    host = f"[{address}]" if ":" in address else address
    for index, port in enumerate(ports):
        number, protocol = port["port"], port["protocol"]
        url = f"{protocol.lower()}://{host}:{number}"
        if index == 0:
            found[f"{prefix}_PORT"] = url
        link = f"{prefix}_PORT_{number}_{protocol}"
        found |= {
            link: url,
            f"{link}_PROTO": protocol.lower(),
            f"{link}_PORT": str(number),
            f"{link}_ADDR": address,
        }
    return found


def _shout(name: str) -> str:
    return name.upper().replace("-", "_")


def _fields(pod: Json, addresses: list[str]) -> dict[str, str]:
    """What `fieldRef` may name, of what the lab knows."""
    metadata, spec = pod["metadata"], pod["spec"]
    return {
        "metadata.name": metadata["name"],
        "metadata.namespace": metadata["namespace"],
        "metadata.uid": metadata["uid"],
        "spec.nodeName": spec.get("nodeName", ""),
        "spec.serviceAccountName": spec.get("serviceAccountName", ""),
        "status.podIP": addresses[0] if addresses else "",
        "status.podIPs": ",".join(addresses),
    }


def _expand(text: str, known: Mapping[str, str]) -> str:
    """`$(NAME)` becomes its value where there is one, `$$(NAME)` becomes `$(NAME)`."""

    def value(match: re.Match[str]) -> str:
        if match[0].startswith("$$"):
            return match[0][1:]
        return known.get(match[1], match[0])

    return re.sub(r"\$?\$\(([-._A-Za-z0-9]+)\)", value, text)

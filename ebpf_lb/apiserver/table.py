"""Objects as tables (meta.k8s.io/v1), with kubectl's columns: what `get` prints comes from here.

https://kubernetes.io/docs/reference/using-api/api-concepts/#receiving-resources-as-tables
"""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, NamedTuple

from ebpf_lb.apiserver.kinds import Kind
from ebpf_lb.apiserver.paths import value, values
from ebpf_lb.apiserver.store import Json, Stored

# What stands below a title: the values at a path, or what a function says of the object.
Said = Callable[[Json], Any]
Cell = str | Said


class Column(NamedTuple):
    """`wide`: only with -o wide."""

    title: str
    cell: Cell
    wide: bool = False

    def text(self, object_: Json) -> str:
        cell = self.cell
        found = _join(values(object_, cell)) if isinstance(cell, str) else cell(object_)
        return str(found) or "<none>"


def table(kind: Kind, stored: Iterable[Stored], metadata: Json, include: str) -> Json:
    """The Table of these objects. include: what else is told of each, "None", "Metadata" or
    "Object"."""
    columns = _columns(kind)
    return {
        "kind": "Table",
        "apiVersion": "meta.k8s.io/v1",
        "metadata": metadata,
        "columnDefinitions": [
            {
                "name": column.title,
                "type": "string",
                "format": "name" if column.title == "Name" else "",
                "description": column.title,
                "priority": int(column.wide),
            }
            for column in columns
        ],
        "rows": [_row(columns, one, include) for one in stored],
    }


def _row(columns: Sequence[Column], stored: Stored, include: str) -> Json:
    row: Json = {"cells": [column.text(stored.object) for column in columns]}
    if include == "Metadata":
        row["object"] = {
            "kind": "PartialObjectMetadata",
            "apiVersion": "meta.k8s.io/v1",
            "metadata": stored.metadata,
        }
    elif include == "Object":
        kind = stored.kind
        row["object"] = {"kind": kind.name, "apiVersion": kind.api_version} | stored.object
    return row


def _columns(kind: Kind) -> list[Column]:
    narrow = [Column(title, cell) for title, cell in _NARROW.get(kind.name, {}).items()]
    if kind.name == "Event":
        return narrow
    wide = [Column(title, cell, True) for title, cell in _WIDE.get(kind.name, {}).items()]
    # The age stands where kubectl has it: after the narrow columns, before the wide ones.
    return [Column("Name", "metadata.name"), *narrow, Column("Age", _age), *wide]


def human_age(seconds: float) -> str:
    """`5s`, `2m5s`, `17m`, `3h4m`, `9h`, `2d3h`, `12d`: two units while the first one is small."""
    total = max(0, int(seconds))
    minutes, hours, days = total // 60, total // 3600, total // 86_400
    if total < 120:
        return f"{total}s"
    if minutes < 10:
        return f"{minutes}m" + (f"{total % 60}s" if total % 60 else "")
    if hours < 3:
        return f"{minutes}m"
    if hours < 8:
        return f"{hours}h" + (f"{minutes % 60}m" if minutes % 60 else "")
    if days < 2:
        return f"{hours}h"
    if days < 8:
        return f"{days}d" + (f"{hours % 24}h" if hours % 24 else "")
    return f"{days}d"


def _since(time: str) -> str:
    return human_age((datetime.now(UTC) - datetime.fromisoformat(time)).total_seconds())


def _age(object_: Json) -> str:
    return _since(object_["metadata"]["creationTimestamp"])


def _join(items: Iterable[Any], limit: int = 0) -> str:
    """`a,b,c`, or with a limit `a,b + 1 more...`."""
    texts = [str(item) for item in items]
    if limit and len(texts) > limit:
        return f"{','.join(texts[:limit])} + {len(texts) - limit} more..."
    return ",".join(texts)


def _pairs(path: str) -> Said:
    """`a=1,b=2`."""
    return lambda o: _join(f"{key}={text}" for key, text in sorted(value(o, path, {}).items()))


def _count(path: str) -> Said:
    return lambda o: len(value(o, path, ()))


def _first(*paths: str, otherwise: Any = "") -> Said:
    """The first one that is there."""
    return lambda o: next((found for path in paths for found in values(o, path)), otherwise)


def _label(name: str) -> Said:
    return lambda o: value(o, "metadata.labels", {}).get(name, "")


def _is_ready(object_: Json) -> bool:
    conditions = values(object_, "status.conditions[*]")
    return any(c.get("type") == "Ready" and c.get("status") == "True" for c in conditions)


def _balancer(object_: Json) -> list[str]:
    """Addresses in the status of a Service or an Ingress."""
    ingress = values(object_, "status.loadBalancer.ingress[*]")
    return [entry.get("ip") or entry.get("hostname", "") for entry in ingress]


def _external_addresses(service: Json) -> str:
    kind, external = value(service, "spec.type"), values(service, "spec.externalIPs[*]")
    if kind == "ExternalName":
        return str(value(service, "spec.externalName"))
    return _join(_balancer(service) + external) or ("<pending>" if kind == "LoadBalancer" else "")


def _service_ports(service: Json) -> str:
    return _join(
        f"{port['port']}:{port['nodePort']}/{port['protocol']}"
        if port.get("nodePort")
        else f"{port['port']}/{port['protocol']}"
        for port in values(service, "spec.ports[*]")
    )


def _pod_ready(pod: Json) -> str:
    total = len(values(pod, "spec.containers[*]"))
    return f"{total if _is_ready(pod) else 0}/{total}"


def _pod_status(pod: Json) -> str:
    if "deletionTimestamp" in pod["metadata"]:
        return "Terminating"
    return str(value(pod, "status.reason") or value(pod, "status.phase", "Unknown"))


def _node_status(node: Json) -> str:
    words = ["Ready" if _is_ready(node) else "NotReady"]
    return _join(words + ["SchedulingDisabled"] * bool(value(node, "spec.unschedulable")))


def _internal_addresses(node: Json) -> str:
    known = values(node, "status.addresses[*]")
    return _join(address["address"] for address in known if address["type"] == "InternalIP")


def _slice_states(slice_: Json) -> str:
    """`2 ready,1 serving+terminating`."""
    counts: Counter[str] = Counter()
    for endpoint in values(slice_, "endpoints[*]"):
        conditions = endpoint.get("conditions") or {}
        serving = "serving+" if conditions.get("serving", True) else ""
        state = f"{serving}terminating" if conditions.get("terminating") else "not ready"
        counts["ready" if conditions.get("ready", True) else state] += 1
    return _join(f"{count} {state}" for state, count in counts.items())


def _endpoints_addresses(endpoints: Json) -> str:
    found: list[str] = []
    for subset in values(endpoints, "subsets[*]"):
        ports = values(subset, "ports[*].port")
        for address in values(subset, "addresses[*].ip"):
            host = f"[{address}]" if ":" in address else address
            found += [f"{host}:{port}" for port in ports] or [address]
    return _join(found, 3)


def _unset(path: str) -> Said:
    """At most three values."""
    return lambda o: _join(values(o, path), 3) or "<unset>"


def _parameters(ingress_class: Json) -> str:
    found = value(ingress_class, "spec.parameters")
    group = f".{found['apiGroup']}" if found and found.get("apiGroup") else ""
    return f"{found['kind']}{group}/{found['name']}" if found else ""


def _ready_replicas(object_: Json) -> str:
    return f"{value(object_, 'status.readyReplicas', 0)}/{value(object_, 'spec.replicas', 1)}"


def _event_object(event: Json) -> str:
    about = event.get("regarding") or event.get("involvedObject") or {}
    return f"{about.get('kind', '')}/{about.get('name', '')}"


_last_seen = _first(
    "lastTimestamp", "series.lastObservedTime", "eventTime", "metadata.creationTimestamp"
)

_NARROW: Mapping[str, Mapping[str, Cell]] = {
    "Service": {
        "TYPE": "spec.type",
        "CLUSTER-IP": "spec.clusterIPs[*]",
        "EXTERNAL-IP": _external_addresses,
        "PORT(S)": _service_ports,
    },
    "Pod": {
        "READY": _pod_ready,
        "STATUS": _pod_status,
        "RESTARTS": lambda o: sum(values(o, "status.containerStatuses[*].restartCount")),
    },
    "Node": {
        "STATUS": _node_status,
        "ROLES": lambda _: "",
        "VERSION": "status.nodeInfo.kubeletVersion",
    },
    "Namespace": {"STATUS": "status.phase"},
    "Endpoints": {"ENDPOINTS": _endpoints_addresses},
    "EndpointSlice": {
        "ADDRESSTYPE": "addressType",
        "PORTS": _unset("ports[*].port"),
        "ENDPOINTS": _unset("endpoints[*].addresses[*]"),
    },
    "Deployment": {
        "READY": _ready_replicas,
        "UP-TO-DATE": _first("status.updatedReplicas", otherwise=0),
        "AVAILABLE": _first("status.availableReplicas", otherwise=0),
    },
    "StatefulSet": {"READY": _ready_replicas},
    "Ingress": {
        "CLASS": "spec.ingressClassName",
        "HOSTS": lambda o: (
            _join([r.get("host") or "*" for r in values(o, "spec.rules[*]")], 3) or "*"
        ),
        "ADDRESS": lambda o: _join(_balancer(o)),
        "PORTS": lambda o: "80, 443" if value(o, "spec.tls") else "80",
    },
    "IngressClass": {"CONTROLLER": "spec.controller", "PARAMETERS": _parameters},
    "ServiceCIDR": {"CIDRS": "spec.cidrs[*]"},
    "Event": {
        "LAST SEEN": lambda o: _since(_last_seen(o)),
        "TYPE": "type",
        "REASON": "reason",
        "OBJECT": _event_object,
        "MESSAGE": _first("note", "message"),
    },
    "ConfigMap": {"DATA": _count("data")},
    "Secret": {"TYPE": "type", "DATA": _count("data")},
    "Lease": {"HOLDER": "spec.holderIdentity"},
}
_WORKLOAD: Mapping[str, Cell] = {
    "CONTAINERS": "spec.template.spec.containers[*].name",
    "IMAGES": "spec.template.spec.containers[*].image",
}
_WIDE: Mapping[str, Mapping[str, Cell]] = {
    "Service": {"SELECTOR": _pairs("spec.selector")},
    "Pod": {"IP": "status.podIPs[*].ip", "NODE": "spec.nodeName"},
    "Node": {
        "INTERNAL-IP": _internal_addresses,
        "ZONE": _label("topology.kubernetes.io/zone"),
        "POD-CIDRS": "spec.podCIDRs[*]",
    },
    "EndpointSlice": {"STATES": _slice_states},
    "Deployment": {**_WORKLOAD, "SELECTOR": _pairs("spec.selector.matchLabels")},
    "StatefulSet": _WORKLOAD,
}

"""Objects as tables (meta.k8s.io/v1), with kubectl's columns: what `get` prints comes from here.

https://kubernetes.io/docs/reference/using-api/api-concepts/#receiving-resources-as-tables
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from ebpf_lb.lab.apiserver.kinds import (
    DEPLOYMENT,
    ENDPOINT_SLICE,
    ENDPOINTS,
    INGRESS,
    INGRESS_CLASS,
    KINDS,
    NAMESPACE,
    NODE,
    POD,
    SERVICE,
    SERVICE_CIDR,
    STATEFUL_SET,
    Kind,
)
from ebpf_lb.lab.apiserver.store import Json, Stored


@dataclass(frozen=True, slots=True)
class Column:
    """`wide`: only with -o wide."""

    title: str
    cell: Callable[[Json], str]
    wide: bool = False


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
                "format": "name" if column is _NAME else "",
                "description": column.title,
                "priority": int(column.wide),
            }
            for column in columns
        ],
        "rows": [_row(columns, one, include) for one in stored],
    }


def _row(columns: Sequence[Column], stored: Stored, include: str) -> Json:
    row: Json = {"cells": [column.cell(stored.object) or "<none>" for column in columns]}
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
    columns = [_NAME, *_COLUMNS.get(kind, ())]
    if kind.name == "Event":
        return columns[1:]
    # The age stands where kubectl has it: after the narrow columns, before the wide ones.
    age = next((i for i, column in enumerate(columns) if column.wide), len(columns))
    columns.insert(age, Column("Age", _age))
    return columns


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


_NAME = Column("Name", lambda o: str(o["metadata"]["name"]))


def _join(items: Sequence[str], limit: int = 0) -> str:
    """`a,b,c`, or with a limit `a,b + 1 more...`."""
    if limit and len(items) > limit:
        return f"{','.join(items[:limit])} + {len(items) - limit} more..."
    return ",".join(items)


def _pairs(values: dict[str, str] | None) -> str:
    return _join([f"{key}={value}" for key, value in sorted((values or {}).items())])


def _labels(object_: Json) -> Json:
    return object_["metadata"].get("labels") or {}


def _spec(object_: Json) -> Json:
    return object_.get("spec") or {}


def _status(object_: Json) -> Json:
    return object_.get("status") or {}


def _condition(object_: Json, type_: str) -> str:
    for condition in _status(object_).get("conditions") or ():
        if condition.get("type") == type_:
            return str(condition.get("status", ""))
    return ""


def _containers(object_: Json) -> list[Json]:
    template = _spec(object_).get("template") or {}
    containers: list[Json] = (template.get("spec") or {}).get("containers") or []
    return containers


def _selector(object_: Json) -> str:
    return _pairs((_spec(object_).get("selector") or {}).get("matchLabels"))


# --- Services


def _external_addresses(service: Json) -> str:
    spec = _spec(service)
    ingress = (_status(service).get("loadBalancer") or {}).get("ingress") or ()
    addresses = [entry.get("ip") or entry.get("hostname", "") for entry in ingress]
    if spec.get("type") == "ExternalName":
        return str(spec.get("externalName", ""))
    if spec.get("type") == "LoadBalancer" and not addresses and not spec.get("externalIPs"):
        return "<pending>"
    return _join([*addresses, *(spec.get("externalIPs") or ())])


def _service_ports(service: Json) -> str:
    return _join(
        [
            f"{port['port']}:{port['nodePort']}/{port['protocol']}"
            if port.get("nodePort")
            else f"{port['port']}/{port['protocol']}"
            for port in _spec(service).get("ports") or ()
        ]
    )


# --- Pods


def _pod_ready(pod: Json) -> str:
    total = len(_spec(pod).get("containers") or ())
    return f"{total if _condition(pod, 'Ready') == 'True' else 0}/{total}"


def _pod_status(pod: Json) -> str:
    if "deletionTimestamp" in pod["metadata"]:
        return "Terminating"
    return str(_status(pod).get("reason") or _status(pod).get("phase") or "Unknown")


def _pod_restarts(pod: Json) -> str:
    statuses = _status(pod).get("containerStatuses") or ()
    return str(sum(status.get("restartCount", 0) for status in statuses))


def _pod_addresses(pod: Json) -> str:
    addresses = [entry["ip"] for entry in _status(pod).get("podIPs") or ()]
    return _join(addresses) or str(_status(pod).get("podIP") or "")


# --- Nodes, endpoints, workloads


def _node_status(node: Json) -> str:
    words = ["Ready" if _condition(node, "Ready") == "True" else "NotReady"]
    if _spec(node).get("unschedulable"):
        words.append("SchedulingDisabled")
    return _join(words)


def _node_addresses(type_: str) -> Callable[[Json], str]:
    return lambda node: _join(
        [
            address["address"]
            for address in _status(node).get("addresses") or ()
            if address.get("type") == type_
        ]
    )


def _slice_ports(slice_: Json) -> str:
    ports = [str(port.get("port", "*")) for port in slice_.get("ports") or ()]
    return _join(ports, 3) or "<unset>"


def _slice_addresses(slice_: Json) -> str:
    endpoints = slice_.get("endpoints") or ()
    return _join([endpoint["addresses"][0] for endpoint in endpoints], 3) or "<unset>"


def _slice_states(slice_: Json) -> str:
    """`2 ready,1 serving+terminating`."""
    counts: dict[str, int] = {}
    for endpoint in slice_.get("endpoints") or ():
        conditions = endpoint.get("conditions") or {}
        if conditions.get("ready", True):
            state = "ready"
        elif conditions.get("terminating"):
            state = "serving+terminating" if conditions.get("serving", True) else "terminating"
        else:
            state = "not ready"
        counts[state] = counts.get(state, 0) + 1
    return _join([f"{count} {state}" for state, count in counts.items()])


def _endpoints_addresses(endpoints: Json) -> str:
    found = []
    for subset in endpoints.get("subsets") or ():
        for address in subset.get("addresses") or ():
            host = f"[{address['ip']}]" if ":" in address["ip"] else address["ip"]
            ports = subset.get("ports") or ()
            found += [f"{host}:{port['port']}" for port in ports] or [address["ip"]]
    return _join(found, 3)


# --- Ingresses


def _hosts(ingress: Json) -> str:
    found = [rule.get("host") or "*" for rule in _spec(ingress).get("rules") or ()]
    return _join(found, 3) or "*"


def _ingress_addresses(ingress: Json) -> str:
    given = (_status(ingress).get("loadBalancer") or {}).get("ingress") or ()
    return _join([entry.get("ip") or entry.get("hostname", "") for entry in given])


def _parameters(ingress_class: Json) -> str:
    found = _spec(ingress_class).get("parameters")
    if not found:
        return ""
    kind = f"{found['kind']}.{found['apiGroup']}" if found.get("apiGroup") else found["kind"]
    return f"{kind}/{found['name']}"


def _ready_replicas(object_: Json) -> str:
    return f"{_status(object_).get('readyReplicas', 0)}/{_spec(object_).get('replicas', 1)}"


def _number(field: str) -> Callable[[Json], str]:
    return lambda object_: str(_status(object_).get(field, 0))


_WORKLOAD_WIDE = (
    Column("CONTAINERS", lambda o: _join([c["name"] for c in _containers(o)]), wide=True),
    Column("IMAGES", lambda o: _join([c["image"] for c in _containers(o)]), wide=True),
)

_COLUMNS: dict[Kind, tuple[Column, ...]] = {
    SERVICE: (
        Column("TYPE", lambda o: str(_spec(o).get("type", ""))),
        Column("CLUSTER-IP", lambda o: _join(_spec(o).get("clusterIPs") or ())),
        Column("EXTERNAL-IP", _external_addresses),
        Column("PORT(S)", _service_ports),
        Column("SELECTOR", lambda o: _pairs(_spec(o).get("selector")), wide=True),
    ),
    POD: (
        Column("READY", _pod_ready),
        Column("STATUS", _pod_status),
        Column("RESTARTS", _pod_restarts),
        Column("IP", _pod_addresses, wide=True),
        Column("NODE", lambda o: str(_spec(o).get("nodeName", "")), wide=True),
    ),
    NODE: (
        Column("STATUS", _node_status),
        Column("ROLES", lambda o: ""),
        Column(
            "VERSION", lambda o: str((_status(o).get("nodeInfo") or {}).get("kubeletVersion", ""))
        ),
        Column("INTERNAL-IP", _node_addresses("InternalIP"), wide=True),
        Column("ZONE", lambda o: str(_labels(o).get("topology.kubernetes.io/zone", "")), wide=True),
        Column("POD-CIDRS", lambda o: _join(_spec(o).get("podCIDRs") or ()), wide=True),
    ),
    NAMESPACE: (Column("STATUS", lambda o: str(_status(o).get("phase", ""))),),
    ENDPOINTS: (Column("ENDPOINTS", _endpoints_addresses),),
    ENDPOINT_SLICE: (
        Column("ADDRESSTYPE", lambda o: str(o.get("addressType", ""))),
        Column("PORTS", _slice_ports),
        Column("ENDPOINTS", _slice_addresses),
        Column("STATES", _slice_states, wide=True),
    ),
    DEPLOYMENT: (
        Column("READY", _ready_replicas),
        Column("UP-TO-DATE", _number("updatedReplicas")),
        Column("AVAILABLE", _number("availableReplicas")),
        *_WORKLOAD_WIDE,
        Column("SELECTOR", _selector, wide=True),
    ),
    STATEFUL_SET: (Column("READY", _ready_replicas), *_WORKLOAD_WIDE),
    INGRESS: (
        Column("CLASS", lambda o: str(_spec(o).get("ingressClassName", ""))),
        Column("HOSTS", _hosts),
        Column("ADDRESS", _ingress_addresses),
        Column("PORTS", lambda o: "80, 443" if _spec(o).get("tls") else "80"),
    ),
    INGRESS_CLASS: (
        Column("CONTROLLER", lambda o: str(_spec(o).get("controller", ""))),
        Column("PARAMETERS", _parameters),
    ),
    SERVICE_CIDR: (Column("CIDRS", lambda o: _join(_spec(o).get("cidrs") or ())),),
}

_EVENT = (
    Column("LAST SEEN", lambda o: _since(_last_seen(o))),
    Column("TYPE", lambda o: str(o.get("type", ""))),
    Column("REASON", lambda o: str(o.get("reason", ""))),
    Column(
        "OBJECT",
        lambda o: "{kind}/{name}".format_map(
            {"kind": "", "name": ""} | (o.get("regarding") or o.get("involvedObject") or {})
        ),
    ),
    Column("MESSAGE", lambda o: str(o.get("note") or o.get("message") or "")),
)


def _last_seen(event: Json) -> str:
    series = event.get("series") or {}
    return str(
        event.get("lastTimestamp")
        or series.get("lastObservedTime")
        or event.get("eventTime")
        or event["metadata"]["creationTimestamp"]
    )


_BY_NAME = {
    "Event": _EVENT,
    "ConfigMap": (Column("DATA", lambda o: str(len(o.get("data") or ()))),),
    "Secret": (
        Column("TYPE", lambda o: str(o.get("type", ""))),
        Column("DATA", lambda o: str(len(o.get("data") or ()))),
    ),
    "Lease": (Column("HOLDER", lambda o: str(_spec(o).get("holderIdentity", ""))),),
}
_COLUMNS |= {kind: _BY_NAME[kind.name] for kind in KINDS if kind.name in _BY_NAME}

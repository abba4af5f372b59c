"""The shape of the fields that the lab reads: types, and how lists merge.

Unknown fields pass and are kept. One description serves three purposes: the server's refusal of
wrong types, strategic merge patches, and `lab apply`. Merge keys are those of the API's struct
tags (`patchMergeKey`), with one exception: ports merge by number *and* protocol. Upstream's patch
key is the number alone, so that it mixes up a Service that has one number on TCP and UDP.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True)
class Scalar:
    """A value without parts; `types` are JSON's, `name` is for people (Go's, as in the API)."""

    name: str
    types: tuple[type, ...]


@dataclass(frozen=True, slots=True)
class Struct:
    """An object with known fields; others pass unseen."""

    name: str
    fields: "Mapping[str, Schema]" = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class MapOf:
    """An object with free keys."""

    values: "Schema"


@dataclass(frozen=True, slots=True)
class ListOf:
    """A list. `merge_key`: its items are told apart by these fields (`()`: replaced as a whole).
    `as_set`: plain values, each of which is there or not."""

    items: "Schema"
    merge_key: tuple[str, ...] = ()
    as_set: bool = False


Schema = Scalar | Struct | MapOf | ListOf

STRING = Scalar("string", (str,))
INTEGER = Scalar("int32", (int,))
BOOLEAN = Scalar("bool", (bool,))
INT_OR_STRING = Scalar("IntOrString", (int, str))
ANY = Scalar("any", (object,))

# What a merge key stands for where it is left out.
KEY_DEFAULTS = {"protocol": "TCP"}

_JSON_NAMES = {
    bool: "bool",
    int: "number",
    float: "number",
    str: "string",
    dict: "object",
    list: "array",
}
_PLAIN_NAMES = {
    "string": "a string",
    "int32": "a whole number",
    "bool": "true or false",
    "IntOrString": "a whole number or a string",
}


@dataclass(frozen=True, slots=True)
class WrongType(Exception):
    """A value of another type than its field's. `field` has list indexes, as in `spec.ports[0]`."""

    field: str
    struct: str
    found: str
    wanted: str

    def message(self, kind: str, version: str) -> str:
        """As the API server words it, with the index, which it leaves out."""
        return (
            f'{kind} in version "{version}" cannot be handled as a {kind}: json: cannot unmarshal '
            f"{self.found} into Go struct field {self.struct}.{self.field} of type {self.wanted}"
        )

    @property
    def hint(self) -> str:
        return f"must be {_PLAIN_NAMES.get(self.wanted, self.wanted)}, not {self.found}"


def check(value: Any, schema: Schema, path: str = "", struct: str = "") -> None:
    """Raises WrongType at the first value that has another type than its field. None passes."""
    if value is None or schema is ANY:
        return
    match schema:
        case Scalar(name, types):
            is_bool = isinstance(value, bool)
            if not isinstance(value, types) or (is_bool and bool not in types):
                raise WrongType(path, struct, _json_name(value), name)
        case Struct(name, fields):
            if not isinstance(value, dict):
                raise WrongType(path, struct, _json_name(value), "an object")
            for key, inner in fields.items():
                if key in value:
                    check(value[key], inner, f"{path}.{key}" if path else key, name)
        case MapOf(values):
            if not isinstance(value, dict):
                raise WrongType(path, struct, _json_name(value), "an object")
            for key, item in value.items():
                check(item, values, f"{path}.{key}", struct)
        case ListOf(items):
            if not isinstance(value, list):
                raise WrongType(path, struct, _json_name(value), "a list")
            for index, item in enumerate(value):
                check(item, items, f"{path}[{index}]", struct)


def _json_name(value: Any) -> str:
    return _JSON_NAMES.get(type(value), type(value).__name__)


def child(schema: Schema | None, key: str) -> Schema | None:
    """The schema of a field; None where nothing is known."""
    match schema:
        case Struct(_, fields):
            return fields.get(key)
        case MapOf(values):
            return values
    return None


def identity(item: Any, merge_key: tuple[str, ...]) -> tuple[Any, ...]:
    """What tells an item of a keyed list apart."""
    if not isinstance(item, dict):
        return (item,)
    return tuple(item.get(key, KEY_DEFAULTS.get(key)) for key in merge_key)


METADATA = Struct(
    "ObjectMeta",
    {
        "name": STRING,
        "generateName": STRING,
        "namespace": STRING,
        "uid": STRING,
        "resourceVersion": STRING,
        "labels": MapOf(STRING),
        "annotations": MapOf(STRING),
        "finalizers": ListOf(STRING, as_set=True),
        "ownerReferences": ListOf(
            Struct(
                "OwnerReference",
                {
                    "apiVersion": STRING,
                    "kind": STRING,
                    "name": STRING,
                    "uid": STRING,
                    "controller": BOOLEAN,
                },
            ),
            ("uid",),
        ),
    },
)

_CONDITIONS = ListOf(Struct("Condition", {"type": STRING, "status": STRING}), ("type",))


def _object(name: str, **fields: Schema) -> Struct:
    return Struct(name, {"metadata": METADATA, **fields})


_STRINGS = ListOf(STRING)

_CONTAINER = Struct(
    "Container",
    {
        "name": STRING,
        "image": STRING,
        "command": _STRINGS,
        "args": _STRINGS,
        "env": ListOf(Struct("EnvVar", {"name": STRING, "value": STRING}), ("name",)),
        "ports": ListOf(
            Struct(
                "ContainerPort",
                {
                    "name": STRING,
                    "containerPort": INTEGER,
                    "hostPort": INTEGER,
                    "protocol": STRING,
                },
            ),
            ("containerPort", "protocol"),
        ),
        "volumeMounts": ListOf(Struct("VolumeMount", {"mountPath": STRING}), ("mountPath",)),
        "readinessProbe": Struct("Probe"),
        "livenessProbe": Struct("Probe"),
    },
)

_POD_SPEC = Struct(
    "PodSpec",
    {
        "containers": ListOf(_CONTAINER, ("name",)),
        "initContainers": ListOf(_CONTAINER, ("name",)),
        "volumes": ListOf(Struct("Volume", {"name": STRING}), ("name",)),
        "nodeName": STRING,
        "nodeSelector": MapOf(STRING),
        "hostNetwork": BOOLEAN,
        "hostname": STRING,
        "subdomain": STRING,
        "terminationGracePeriodSeconds": INTEGER,
        "imagePullSecrets": ListOf(Struct("LocalObjectReference", {"name": STRING}), ("name",)),
    },
)

_LABEL_SELECTOR = Struct(
    "LabelSelector",
    {
        "matchLabels": MapOf(STRING),
        "matchExpressions": ListOf(
            Struct(
                "LabelSelectorRequirement", {"key": STRING, "operator": STRING, "values": _STRINGS}
            )
        ),
    },
)

_TEMPLATE = Struct("PodTemplateSpec", {"metadata": METADATA, "spec": _POD_SPEC})

GENERIC = _object("Object")

NAMESPACE = _object(
    "Namespace",
    spec=Struct("NamespaceSpec", {"finalizers": _STRINGS}),
    status=Struct("NamespaceStatus", {"phase": STRING, "conditions": _CONDITIONS}),
)

NODE = _object(
    "Node",
    spec=Struct(
        "NodeSpec",
        {
            "podCIDR": STRING,
            "podCIDRs": ListOf(STRING, as_set=True),
            "unschedulable": BOOLEAN,
            "taints": ListOf(Struct("Taint", {"key": STRING, "value": STRING, "effect": STRING})),
        },
    ),
    status=Struct(
        "NodeStatus",
        {
            # The API's tag says merge by type, which loses the second InternalIP of a dual-stack
            # node (upstream's own kubelet works around it); the pair is what tells them apart.
            "addresses": ListOf(
                Struct("NodeAddress", {"type": STRING, "address": STRING}), ("type", "address")
            ),
            "conditions": _CONDITIONS,
        },
    ),
)

POD = _object(
    "Pod",
    spec=_POD_SPEC,
    status=Struct(
        "PodStatus",
        {
            "phase": STRING,
            "podIP": STRING,
            "podIPs": ListOf(Struct("PodIP", {"ip": STRING}), ("ip",)),
            "conditions": _CONDITIONS,
        },
    ),
)

DEPLOYMENT = _object(
    "Deployment",
    spec=Struct(
        "DeploymentSpec",
        {
            "replicas": INTEGER,
            "selector": _LABEL_SELECTOR,
            "template": _TEMPLATE,
            "paused": BOOLEAN,
            "strategy": Struct(
                "DeploymentStrategy",
                {
                    "type": STRING,
                    "rollingUpdate": Struct(
                        "RollingUpdateDeployment",
                        {"maxSurge": INT_OR_STRING, "maxUnavailable": INT_OR_STRING},
                    ),
                },
            ),
        },
    ),
    status=Struct("DeploymentStatus", {"conditions": _CONDITIONS}),
)

STATEFUL_SET = _object(
    "StatefulSet",
    spec=Struct(
        "StatefulSetSpec",
        {
            "replicas": INTEGER,
            "serviceName": STRING,
            "selector": _LABEL_SELECTOR,
            "template": _TEMPLATE,
            "podManagementPolicy": STRING,
            "ordinals": Struct("StatefulSetOrdinals", {"start": INTEGER}),
            "updateStrategy": Struct(
                "StatefulSetUpdateStrategy",
                {
                    "type": STRING,
                    "rollingUpdate": Struct(
                        "RollingUpdateStatefulSetStrategy", {"partition": INTEGER}
                    ),
                },
            ),
        },
    ),
    status=Struct("StatefulSetStatus", {"conditions": _CONDITIONS}),
)

SERVICE = _object(
    "Service",
    spec=Struct(
        "ServiceSpec",
        {
            "type": STRING,
            "ports": ListOf(
                Struct(
                    "ServicePort",
                    {
                        "name": STRING,
                        "protocol": STRING,
                        "port": INTEGER,
                        "targetPort": INT_OR_STRING,
                        "nodePort": INTEGER,
                        "appProtocol": STRING,
                    },
                ),
                ("port", "protocol"),
            ),
            "selector": MapOf(STRING),
            "clusterIP": STRING,
            "clusterIPs": _STRINGS,
            "ipFamilies": _STRINGS,
            "ipFamilyPolicy": STRING,
            "externalIPs": _STRINGS,
            "externalName": STRING,
            "sessionAffinity": STRING,
            "sessionAffinityConfig": Struct(
                "SessionAffinityConfig",
                {"clientIP": Struct("ClientIPConfig", {"timeoutSeconds": INTEGER})},
            ),
            "loadBalancerIP": STRING,
            "loadBalancerClass": STRING,
            "loadBalancerSourceRanges": _STRINGS,
            "allocateLoadBalancerNodePorts": BOOLEAN,
            "externalTrafficPolicy": STRING,
            "internalTrafficPolicy": STRING,
            "healthCheckNodePort": INTEGER,
            "publishNotReadyAddresses": BOOLEAN,
            "trafficDistribution": STRING,
        },
    ),
    status=Struct(
        "ServiceStatus",
        {
            "loadBalancer": Struct(
                "LoadBalancerStatus",
                {
                    "ingress": ListOf(
                        Struct(
                            "LoadBalancerIngress",
                            {"ip": STRING, "hostname": STRING, "ipMode": STRING},
                        )
                    )
                },
            ),
            "conditions": _CONDITIONS,
        },
    ),
)

_TARGET_REFERENCE = Struct("ObjectReference", {"kind": STRING, "name": STRING})

ENDPOINT_SLICE = _object(
    "EndpointSlice",
    addressType=STRING,
    endpoints=ListOf(
        Struct(
            "Endpoint",
            {
                "addresses": _STRINGS,
                "conditions": Struct(
                    "EndpointConditions",
                    {"ready": BOOLEAN, "serving": BOOLEAN, "terminating": BOOLEAN},
                ),
                "hostname": STRING,
                "nodeName": STRING,
                "zone": STRING,
                "hints": Struct(
                    "EndpointHints",
                    {
                        "forZones": ListOf(Struct("ForZone", {"name": STRING})),
                        "forNodes": ListOf(Struct("ForNode", {"name": STRING})),
                    },
                ),
                "targetRef": _TARGET_REFERENCE,
            },
        )
    ),
    ports=ListOf(
        Struct(
            "EndpointPort",
            {"name": STRING, "protocol": STRING, "port": INTEGER, "appProtocol": STRING},
        )
    ),
)

_ENDPOINT_ADDRESSES = ListOf(
    Struct(
        "EndpointAddress",
        {"ip": STRING, "hostname": STRING, "nodeName": STRING, "targetRef": _TARGET_REFERENCE},
    )
)

ENDPOINTS = _object(
    "Endpoints",
    subsets=ListOf(
        Struct(
            "EndpointSubset",
            {
                "addresses": _ENDPOINT_ADDRESSES,
                "notReadyAddresses": _ENDPOINT_ADDRESSES,
                "ports": ListOf(
                    Struct("EndpointPort", {"name": STRING, "protocol": STRING, "port": INTEGER})
                ),
            },
        )
    ),
)

SERVICE_CIDR = _object(
    "ServiceCIDR",
    spec=Struct("ServiceCIDRSpec", {"cidrs": _STRINGS}),
    status=Struct("ServiceCIDRStatus", {"conditions": _CONDITIONS}),
)

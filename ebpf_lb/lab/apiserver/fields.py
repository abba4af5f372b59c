"""The fields that the lab reads of each kind. Merge keys are those of the API's struct tags
(`patchMergeKey`), with one exception: ports merge by number *and* protocol. Upstream's patch key is
the number alone, so that it mixes up a Service that has one number on TCP and UDP.
"""

from ebpf_lb.lab.apiserver.schema import (
    BOOLEAN,
    INT_OR_STRING,
    INTEGER,
    STRING,
    ListOf,
    MapOf,
    Schema,
    Struct,
)

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

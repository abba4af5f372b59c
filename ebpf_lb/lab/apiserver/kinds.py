"""The kinds that the server knows. A further kind is one more row.

What only some kinds have (defaults, validation, allocation) lives in `strategies`.
"""

from dataclasses import dataclass

from ebpf_lb.lab.apiserver.schema import Struct


@dataclass(frozen=True, slots=True, eq=False)
class Kind:
    """One resource of the API.

    has_status: `status` is written through its own subresource. has_generation: a change outside
    metadata and status counts `metadata.generation` up. limit: how many objects are kept, the
    oldest make room (0: all). returns_deleted: a deletion answers with the object, else with a
    Status (upstream's ReturnDeletedObject). model: the client library's, where it is not V1NAME.
    """

    name: str
    plural: str
    group: str = ""
    version: str = "v1"
    namespaced: bool = True
    short_names: tuple[str, ...] = ()
    in_all: bool = False
    has_status: bool = False
    has_scale: bool = False
    has_generation: bool = False
    limit: int = 0
    returns_deleted: bool = False
    model: str = ""

    @property
    def api_version(self) -> str:
        return f"{self.group}/{self.version}" if self.group else self.version

    @property
    def resource(self) -> str:
        """As in messages: `services`, `deployments.apps`."""
        return f"{self.plural}.{self.group}" if self.group else self.plural

    @property
    def qualified_name(self) -> str:
        """As in messages: `Service`, `Deployment.apps`."""
        return f"{self.name}.{self.group}" if self.group else self.name

    @property
    def schema(self) -> Struct:
        return Struct(self.model or f"V1{self.name}")

    def collection_path(self, namespace: str | None) -> str:
        """The URL path of all its objects, in one namespace where one is given."""
        root = f"/apis/{self.group}/{self.version}" if self.group else f"/api/{self.version}"
        scope = f"/namespaces/{namespace}" if self.namespaced and namespace else ""
        return f"{root}{scope}/{self.plural}"

    def path(self, namespace: str | None, name: str) -> str:
        return f"{self.collection_path(namespace)}/{name}"


NAMESPACE = Kind(
    "Namespace",
    "namespaces",
    namespaced=False,
    short_names=("ns",),
    has_status=True,
    returns_deleted=True,
)
NODE = Kind("Node", "nodes", namespaced=False, short_names=("no",), has_status=True)
SERVICE = Kind(
    "Service", "services", short_names=("svc",), in_all=True, has_status=True, returns_deleted=True
)
ENDPOINTS = Kind("Endpoints", "endpoints", short_names=("ep",))
ENDPOINT_SLICE = Kind("EndpointSlice", "endpointslices", "discovery.k8s.io", has_generation=True)
POD = Kind(
    "Pod",
    "pods",
    short_names=("po",),
    in_all=True,
    has_status=True,
    has_generation=True,
    returns_deleted=True,
)
DEPLOYMENT = Kind(
    "Deployment",
    "deployments",
    "apps",
    short_names=("deploy",),
    in_all=True,
    has_status=True,
    has_scale=True,
    has_generation=True,
)
STATEFUL_SET = Kind(
    "StatefulSet",
    "statefulsets",
    "apps",
    short_names=("sts",),
    in_all=True,
    has_status=True,
    has_scale=True,
    has_generation=True,
)
SERVICE_CIDR = Kind(
    "ServiceCIDR", "servicecidrs", "networking.k8s.io", namespaced=False, has_status=True
)
INGRESS = Kind(
    "Ingress",
    "ingresses",
    "networking.k8s.io",
    short_names=("ing",),
    has_status=True,
    has_generation=True,
)
INGRESS_CLASS = Kind(
    "IngressClass", "ingressclasses", "networking.k8s.io", namespaced=False, has_generation=True
)
SECRET = Kind("Secret", "secrets")

KINDS: tuple[Kind, ...] = (
    NAMESPACE,
    NODE,
    SERVICE,
    ENDPOINTS,
    ENDPOINT_SLICE,
    POD,
    DEPLOYMENT,
    STATEFUL_SET,
    SERVICE_CIDR,
    INGRESS,
    INGRESS_CLASS,
    Kind("Event", "events", short_names=("ev",), limit=1000, model="CoreV1Event"),
    Kind(
        "Event",
        "events",
        "events.k8s.io",
        short_names=("ev",),
        limit=1000,
        model="EventsV1Event",
    ),
    Kind("ConfigMap", "configmaps", short_names=("cm",)),
    SECRET,
    Kind("ServiceAccount", "serviceaccounts", short_names=("sa",)),
    Kind("Lease", "leases", "coordination.k8s.io"),
)

BY_RESOURCE = {(kind.group, kind.version, kind.plural): kind for kind in KINDS}
BY_TYPE = {(kind.api_version, kind.name): kind for kind in KINDS}


def find_kind(word: str) -> Kind | None:
    """The kind that people mean by `svc`, `service`, `services`, `Service` or `services.v1`."""
    word = word.lower()
    for kind in KINDS:
        names = {kind.plural, kind.name.lower(), kind.resource, *kind.short_names}
        if word in names:
            return kind
    return None

"""The kinds that the server knows. A further kind is one more row.

What only some kinds have (defaults, validation, allocation) lives in `strategies`.
"""

from dataclasses import dataclass
from enum import Flag, auto

from ebpf_lb.apiserver.schema import Struct


class Has(Flag):
    """What a kind has that others have not."""

    NOTHING = 0
    STATUS = auto()
    """`status` is written through its own subresource."""
    SCALE = auto()
    GENERATION = auto()
    """A change outside metadata and status counts `metadata.generation` up."""
    PLACE_IN_ALL = auto()
    """`get all` shows it."""
    LAST_WORDS = auto()
    """A deletion answers with the object, else with a Status (upstream's ReturnDeletedObject)."""


@dataclass(frozen=True, slots=True, eq=False)
class Kind:
    """One resource of the API. short: as kubectl abbreviates it. limit: how many objects are kept,
    the oldest make room (0: all). model: the client library's, where it is not V1NAME."""

    name: str
    plural: str
    short: str = ""
    group: str = ""
    version: str = "v1"
    namespaced: bool = True
    has: Has = Has.NOTHING
    limit: int = 0
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


_WORKLOAD = Has.PLACE_IN_ALL | Has.STATUS | Has.SCALE | Has.GENERATION
_NETWORKING = "networking.k8s.io"

NAMESPACE = Kind("Namespace", "namespaces", "ns", namespaced=False, has=Has.STATUS | Has.LAST_WORDS)
NODE = Kind("Node", "nodes", "no", namespaced=False, has=Has.STATUS)
SERVICE = Kind("Service", "services", "svc", has=Has.PLACE_IN_ALL | Has.STATUS | Has.LAST_WORDS)
ENDPOINTS = Kind("Endpoints", "endpoints", "ep")
ENDPOINT_SLICE = Kind(
    "EndpointSlice", "endpointslices", group="discovery.k8s.io", has=Has.GENERATION
)
POD = Kind(
    "Pod",
    "pods",
    "po",
    has=Has.PLACE_IN_ALL | Has.STATUS | Has.GENERATION | Has.LAST_WORDS,
)
DEPLOYMENT = Kind("Deployment", "deployments", "deploy", "apps", has=_WORKLOAD)
STATEFUL_SET = Kind("StatefulSet", "statefulsets", "sts", "apps", has=_WORKLOAD)
SERVICE_CIDR = Kind(
    "ServiceCIDR", "servicecidrs", group=_NETWORKING, namespaced=False, has=Has.STATUS
)
INGRESS = Kind("Ingress", "ingresses", "ing", _NETWORKING, has=Has.STATUS | Has.GENERATION)
INGRESS_CLASS = Kind(
    "IngressClass", "ingressclasses", group=_NETWORKING, namespaced=False, has=Has.GENERATION
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
    Kind("Event", "events", "ev", limit=1000, model="CoreV1Event"),
    Kind("Event", "events", "ev", "events.k8s.io", limit=1000, model="EventsV1Event"),
    Kind("ConfigMap", "configmaps", "cm"),
    SECRET,
    Kind("ServiceAccount", "serviceaccounts", "sa"),
    Kind("Lease", "leases", group="coordination.k8s.io"),
)

BY_RESOURCE = {(kind.group, kind.version, kind.plural): kind for kind in KINDS}
BY_TYPE = {(kind.api_version, kind.name): kind for kind in KINDS}


def find_kind(word: str) -> Kind | None:
    """The kind that people mean by `svc`, `service`, `services`, `Service` or `services.v1`."""
    word = word.lower()
    for kind in KINDS:
        if word and word in (kind.plural, kind.name.lower(), kind.resource, kind.short):
            return kind
    return None

"""Names of Services, endpoints and pods: from the API's objects to records.

Rules, where the specification leaves room as CoreDNS has them:
- a Service has its clusterIPs, a headless one the addresses of all endpoints that are ready;
- an endpoint is HOSTNAME.SERVICE…, or its address with dashes where it has no hostname;
- a headless Service without ready endpoints, and whatever else is not there, is NXDOMAIN; a name
  that exists, but not with this type of record, has an empty answer without an error;
- pods' dashed names are not checked: each address in a namespace that exists has one.
"""

import ipaddress
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

Json = dict[str, Any]

SERVICES, NAMESPACES = "/api/v1/services", "/api/v1/namespaces"
SLICES = "/apis/discovery.k8s.io/v1/endpointslices"
COLLECTIONS = (SERVICES, NAMESPACES, SLICES)
_SERVICE_OF_SLICE = "kubernetes.io/service-name"

Key = tuple[str, str]
NO_PORT = -1


class Port(NamedTuple):
    """A Service's port. number: 0 for a pod by its dashed name, NO_PORT for a headless Service
    without ports, which has no SRV records."""

    name: str
    protocol: str
    number: int


@dataclass(frozen=True, slots=True)
class Record:
    """An address with the port at which it serves. `host`: the labels of its own name below the
    zone, to which SRV records lead."""

    host: tuple[str, ...]
    address: str
    port: Port


@dataclass(frozen=True, slots=True)
class Alias:
    """An ExternalName: another name instead of records."""

    target: str


class Zone:
    """The objects as they were told last, and what is found in them."""

    def __init__(self) -> None:
        self._objects: dict[str, dict[str, Json]] = {path: {} for path in COLLECTIONS}  # by uid
        self._services: dict[Key, Json] = {}
        self._slices: dict[Key, dict[str, Json]] = {}
        self._by_address: dict[str, Key] = {}
        self._listed: set[str] = set()

    @property
    def complete(self) -> bool:
        """Whether every collection has been listed."""
        return self._listed == set(COLLECTIONS)

    # --- what the API server tells

    def take(self, path: str, news: list[Json] | Json) -> None:
        """A whole list, or one event of a watch, of one of COLLECTIONS."""
        if isinstance(news, list):
            for uid in list(self._objects[path]):
                self._forget(path, uid)
            for object_ in news:
                self._learn(path, object_)
            self._listed.add(path)
            return
        object_ = news["object"]
        self._forget(path, object_["metadata"]["uid"])
        if news["type"] != "DELETED":
            self._learn(path, object_)

    def _learn(self, path: str, object_: Json) -> None:
        self._objects[path][object_["metadata"]["uid"]] = object_
        if path == SERVICES:
            key = _key(object_)
            self._services[key] = object_
            self._by_address |= {_plain(address): key for address in _cluster_ips(object_)}
        elif path == SLICES and (owner := _service_of(object_)):
            self._slices.setdefault(owner, {})[object_["metadata"]["uid"]] = object_

    def _forget(self, path: str, uid: str) -> None:
        object_ = self._objects[path].pop(uid, None)
        if object_ is None:
            return
        if path == SERVICES:
            key = _key(object_)
            self._services.pop(key, None)
            for address in _cluster_ips(object_):
                if self._by_address.get(_plain(address)) == key:
                    del self._by_address[_plain(address)]
        elif path == SLICES and (owner := _service_of(object_)):
            self._slices[owner].pop(uid, None)

    # --- what there is

    def find(self, labels: tuple[str, ...]) -> list[Record] | Alias | None:
        """What a name below the zone stands for, in small letters; [] for a name that only has
        others below it, None for one that does not exist."""
        match labels:
            case () | ("svc" | "pod",):
                return []
            case (namespace, "svc" | "pod"):
                return [] if self._has_namespace(namespace) else None
            case (dashed, namespace, "pod"):
                return self._pod(dashed, namespace)
            case (service, namespace, "svc"):
                return self._service((namespace, service))
            case (endpoint, service, namespace, "svc") if not endpoint.startswith("_"):
                records = self._endpoints((namespace, service))
                return [record for record in records if record.host[0] == endpoint] or None
            case (port, protocol, service, namespace, "svc"):
                return self._port(port, protocol, (namespace, service))
        return None

    def reverse(self, address: str) -> list[tuple[str, ...]]:
        """The names of an address: of a Service, or of endpoints."""
        if key := self._by_address.get(address):
            return [_service_labels(key)]
        names = {
            (_endpoint_name(endpoint, address), *_service_labels(key))
            for key, slices in self._slices.items()
            if key in self._services
            for slice_ in slices.values()
            for endpoint in _ready(slice_)
            if address in (_plain(text) for text in endpoint["addresses"])
        }
        return sorted(names)

    def _has_namespace(self, name: str) -> bool:
        return any(n["metadata"]["name"] == name for n in self._objects[NAMESPACES].values())

    def _service(self, key: Key) -> list[Record] | Alias | None:
        service = self._services.get(key)
        if service is None:
            return None
        spec = service["spec"]
        if spec.get("type") == "ExternalName":
            return Alias(spec["externalName"])
        if spec.get("clusterIP") == "None":
            return list(self._endpoints(key)) or None
        host = _service_labels(key)
        ports = [
            Port(port.get("name", ""), port["protocol"], port["port"]) for port in spec["ports"]
        ]
        return [Record(host, address, p) for address in _cluster_ips(service) for p in ports]

    def _port(self, port: str, protocol: str, key: Key) -> list[Record] | None:
        found = self._service(key)
        if not isinstance(found, list):
            return None
        wanted = (port.removeprefix("_"), protocol.removeprefix("_"))
        return [
            record
            for record in found
            if (record.port.name.lower(), record.port.protocol.lower()) == wanted
        ] or None

    def _endpoints(self, key: Key) -> Iterator[Record]:
        """Ready ones; of a Service with publishNotReadyAddresses the slices say that all are."""
        if key not in self._services:
            return
        for slice_ in self._slices.get(key, {}).values():
            ports = [
                Port(port.get("name") or "", port.get("protocol", "TCP"), port.get("port") or 0)
                for port in slice_.get("ports") or ()
            ] or [Port("", "", NO_PORT)]
            for endpoint in _ready(slice_):
                for address in endpoint["addresses"]:
                    name = _endpoint_name(endpoint, address)
                    for port in ports:
                        yield Record((name, *_service_labels(key)), address, port)

    def _pod(self, dashed: str, namespace: str) -> list[Record] | None:
        if not self._has_namespace(namespace):
            return None
        four = dashed.count("-") == 3 and "--" not in dashed
        try:
            address = str(ipaddress.ip_address(dashed.replace("-", "." if four else ":")))
        except ValueError:
            return None
        return [Record((dashed, namespace, "pod"), address, Port("", "", 0))]


def _key(object_: Json) -> Key:
    return object_["metadata"]["namespace"], object_["metadata"]["name"]


def _service_of(slice_: Json) -> Key | None:
    metadata = slice_["metadata"]
    name = (metadata.get("labels") or {}).get(_SERVICE_OF_SLICE)
    return (metadata["namespace"], name) if name and slice_["addressType"] != "FQDN" else None


def _service_labels(key: Key) -> tuple[str, ...]:
    namespace, name = key
    return name, namespace, "svc"


def _cluster_ips(service: Json) -> list[str]:
    return [a for a in service["spec"].get("clusterIPs") or () if a != "None"]


def _ready(slice_: Json) -> Iterable[Json]:
    return (
        endpoint
        for endpoint in slice_.get("endpoints") or ()
        if (endpoint.get("conditions") or {}).get("ready") is not False
    )


def _plain(address: str) -> str:
    """In the one way in which an address is compared."""
    return str(ipaddress.ip_address(address))


def _endpoint_name(endpoint: Json, address: str) -> str:
    """Its hostname, or its address with dashes."""
    if hostname := endpoint.get("hostname"):
        return str(hostname)
    return address.replace(".", "-").replace(":", "-")

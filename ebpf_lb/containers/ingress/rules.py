"""From the API's objects to hosts, paths and the pods that serve them. Pure.

As ingress-nginx has it: the longest path wins, an exact one before a prefix; of two Ingresses that
want the same, the older one; a host without a usable certificate shows the controller's own; plain
HTTP is sent to HTTPS where a host has TLS.
"""

import base64
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

Json = dict[str, Any]

CONTROLLER = "k8s.io/ingress-nginx"
_CLASS = "kubernetes.io/ingress.class"  # the annotation that came before spec.ingressClassName
_DEFAULT_CLASS = "ingressclass.kubernetes.io/is-default-class"
_OWN = "nginx.ingress.kubernetes.io/"
REWRITE, NO_REDIRECT = f"{_OWN}rewrite-target", f"{_OWN}ssl-redirect"
_TARGET = re.compile(r"/[\w/.~%-]*")
_SERVICE_OF_SLICE = "kubernetes.io/service-name"
ANY_HOST = ""

Key = tuple[str, str]


@dataclass(frozen=True, slots=True)
class Backend:
    """A Service's port, with the addresses (ADDRESS:PORT) of the pods that are ready."""

    namespace: str
    service: str
    port: str
    endpoints: tuple[str, ...]

    @property
    def name(self) -> str:
        return f"{self.namespace}.{self.service}.{self.port}"  # no dot is in any of them


@dataclass(frozen=True, slots=True)
class Location:
    """exact: the path alone, without what is below it. rewrite: what the pod is asked for instead,
    "" for the same path. owner: the Ingress."""

    path: str
    exact: bool
    backend: Backend
    rewrite: str
    owner: str


@dataclass(slots=True)
class Host:
    """name: ANY_HOST for requests to all others. certificate: PEM, chain and key; None for the
    controller's own. redirect: whether HTTP is sent to HTTPS."""

    name: str
    locations: list[Location] = field(default_factory=list)
    certificate: bytes | None = None
    tls: bool = False
    redirect: bool = False


@dataclass(frozen=True, slots=True)
class Sites:
    """What nginx is to serve. problems: sentences about what could not be as the objects say."""

    hosts: tuple[Host, ...]
    owners: tuple[Key, ...]
    problems: tuple[str, ...]

    @property
    def backends(self) -> tuple[Backend, ...]:
        found = {loc.backend.name: loc.backend for host in self.hosts for loc in host.locations}
        return tuple(found[name] for name in sorted(found))


def sites(
    ingresses: Iterable[Json],
    classes: Iterable[Json],
    services: Iterable[Json],
    slices: Iterable[Json],
    secrets: Iterable[Json],
) -> Sites:
    """The hosts of all Ingresses that are this controller's."""
    ours = {c["metadata"]["name"]: c for c in classes if c["spec"].get("controller") == CONTROLLER}
    takes_all = any(
        (c["metadata"].get("annotations") or {}).get(_DEFAULT_CLASS) == "true"
        for c in ours.values()
    )
    mine = [one for one in ingresses if _is_ours(one, ours, takes_all)]
    mine.sort(key=lambda one: (one["metadata"]["creationTimestamp"], _key(one)))
    builder = _Builder(services, slices, secrets)
    for ingress in mine:
        builder.add(ingress)
    for ingress in mine:
        builder.add_defaults(ingress)
    hosts = tuple(builder.hosts[name] for name in sorted(builder.hosts))
    return Sites(hosts, tuple(map(_key, mine)), tuple(dict.fromkeys(builder.problems)))


def _is_ours(ingress: Json, ours: Mapping[str, Json], takes_all: bool) -> bool:
    name = ingress["spec"].get("ingressClassName")
    name = name or (ingress["metadata"].get("annotations") or {}).get(_CLASS)
    return name in ours if name else takes_all


class _Builder:
    def __init__(
        self, services: Iterable[Json], slices: Iterable[Json], secrets: Iterable[Json]
    ) -> None:
        self.hosts: dict[str, Host] = {ANY_HOST: Host(ANY_HOST)}
        self.problems: list[str] = []
        self._services = {_key(one): one for one in services}
        self._secrets = {_key(one): one for one in secrets}
        self._slices: dict[Key, list[Json]] = {}
        for one in slices:
            labels = one["metadata"].get("labels") or {}
            key = (one["metadata"]["namespace"], labels.get(_SERVICE_OF_SLICE, ""))
            self._slices.setdefault(key, []).append(one)

    def add(self, ingress: Json) -> None:
        annotations = ingress["metadata"].get("annotations") or {}
        for rule in ingress["spec"].get("rules") or ():
            host = self._host(rule.get("host") or ANY_HOST)
            for path in (rule.get("http") or {}).get("paths") or ():
                exact = path.get("pathType") == "Exact"
                self._add(host, ingress, path.get("path") or "/", exact, path["backend"])
        for entry in ingress["spec"].get("tls") or ():
            self._certify(ingress, entry, annotations.get(NO_REDIRECT) != "false")

    def add_defaults(self, ingress: Json) -> None:
        """What an Ingress wants for all that no rule is about: on its own hosts, and on those that
        nobody has. Last, since a rule about `/` goes before."""
        backend = ingress["spec"].get("defaultBackend")
        if not backend:
            return
        names = [rule.get("host") or ANY_HOST for rule in ingress["spec"].get("rules") or ()]
        for name in dict.fromkeys([*names, ANY_HOST]):
            self._add(self._host(name), ingress, "/", False, backend)

    def _host(self, name: str) -> Host:
        return self.hosts.setdefault(name.lower(), Host(name.lower()))

    def _add(self, host: Host, ingress: Json, path: str, exact: bool, wanted: Json) -> None:
        if any((one.path, one.exact) == (path, exact) for one in host.locations):
            return  # an older Ingress has it
        owner = "/".join(_key(ingress))
        if not wanted.get("service"):
            self.problems.append(f"{owner}: a backend that is not a Service is not served")
            return
        annotations = ingress["metadata"].get("annotations") or {}
        rewrite = annotations.get(REWRITE, "")
        if rewrite and not _TARGET.fullmatch(rewrite):
            self.problems.append(f"{owner}: {REWRITE} must be a plain path, not {rewrite!r}")
            rewrite = ""
        backend = self._backend(ingress["metadata"]["namespace"], wanted["service"], owner)
        host.locations.append(Location(path, exact, backend, rewrite, owner))

    def _certify(self, ingress: Json, entry: Json, redirect: bool) -> None:
        namespace, secret = ingress["metadata"]["namespace"], entry.get("secretName", "")
        found = self._secrets.get((namespace, secret))
        certificate = _certificate(found) if found else None
        if secret and certificate is None:
            why = "is not there" if found is None else "has no tls.crt and tls.key"
            self.problems.append(f"{'/'.join(_key(ingress))}: Secret {secret} {why}")
        for name in entry.get("hosts") or ():
            host = self._host(name)
            if not host.tls:
                host.tls, host.redirect, host.certificate = True, redirect, certificate

    def _backend(self, namespace: str, wanted: Json, owner: str) -> Backend:
        name, port = wanted["name"], wanted["port"].get("name") or wanted["port"].get("number")
        service = self._services.get((namespace, name))
        endpoints: tuple[str, ...] = ()
        if service is None:
            self.problems.append(f"{owner}: there is no Service {namespace}/{name}")
        else:
            ports = service["spec"].get("ports") or ()
            found = next((p for p in ports if port in (p.get("name"), p["port"])), None)
            if found is None:
                self.problems.append(f"{owner}: Service {namespace}/{name} has no port {port}")
            else:
                endpoints = self._endpoints(service, found.get("name") or "")
        return Backend(namespace, name, str(port), endpoints)

    def _endpoints(self, service: Json, port: str) -> tuple[str, ...]:
        """Ready ones, by the Service's first family: a pod has one of each."""
        family = (service["spec"].get("ipFamilies") or ["IPv4"])[0]
        found = set()
        for slice_ in self._slices.get(_key(service), ()):
            if slice_["addressType"] != family:
                continue
            numbers = {
                p["port"] for p in slice_.get("ports") or () if (p.get("name") or "") == port
            }
            for endpoint in slice_.get("endpoints") or ():
                if (endpoint.get("conditions") or {}).get("ready") is not False:
                    host = endpoint["addresses"][0]
                    host = f"[{host}]" if ":" in host else host
                    found |= {f"{host}:{number}" for number in numbers}
        return tuple(sorted(found))


def _certificate(secret: Json) -> bytes | None:
    data = secret.get("data") or {}
    try:
        parts = [base64.b64decode(data[key]) for key in ("tls.crt", "tls.key")]
    except (KeyError, ValueError):
        return None
    return b"\n".join(parts)


def _key(object_: Json) -> Key:
    return object_["metadata"]["namespace"], object_["metadata"]["name"]

"""Ingresses, IngressClasses and the Secrets with their certificates: defaults and validation."""

import base64
import binascii

from ebpf_lb.apiserver.errors import FieldError, bad_value, not_allowed, required
from ebpf_lb.apiserver.store import Json
from ebpf_lb.apiserver.strategies.base import Strategy
from ebpf_lb.apiserver.validation import (
    dns_subdomain,
    ip_family,
    needs,
    one_of,
    port_name,
    port_number,
    qualified_name,
)

_NOT_IN_PATHS = ("//", "/./", "/../", "%2f", "%2F")
_NOT_AT_END = ("/..", "/.")
_TLS_SECRET = "kubernetes.io/tls"
_TLS_KEYS = ("tls.crt", "tls.key")
_SECRET_BYTES = 1 << 20


def _some_rule(field: str, spec: Json) -> list[FieldError]:
    if spec.get("rules") or spec.get("defaultBackend"):
        return []
    return [bad_value(field, spec, "either `defaultBackend` or `rules` must be specified")]


def _name(field: str, host: str) -> list[FieldError]:
    """A name, whose first label may be `*`."""
    return dns_subdomain(field, host.removeprefix("*."))


def _no_address(field: str, host: str) -> list[FieldError]:
    wrong = "must be a DNS name, not an IP address"
    return [bad_value(field, host, wrong)] if ip_family(host) else _name(field, host)


def _path(field: str, path: Json) -> list[FieldError]:
    field, text = f"{field}.path", path.get("path", "")
    wrong = []
    exact = path.get("pathType") in ("Exact", "Prefix")
    if not text.startswith("/") and (text or exact):
        wrong.append("must be an absolute path")
    if exact:
        wrong += [f"must not contain '{part}'" for part in _NOT_IN_PATHS if part in text]
        wrong += [f"cannot end with '{part}'" for part in _NOT_AT_END if text.endswith(part)]
    return [bad_value(field, text, why) for why in wrong]


def _backend(field: str, backend: Json) -> list[FieldError]:
    service, resource = backend.get("service"), backend.get("resource")
    if not backend:
        return []  # left out
    if service and resource:
        return [bad_value(field, backend, "cannot set both resource and service backends")]
    if resource:
        return needs("name")(f"{field}.resource", resource)
    if not service:
        return [required(field, "must specify either a service or a resource")]
    field = f"{field}.service"
    errors = needs("name")(field, service)
    if service.get("name"):
        errors += dns_subdomain(f"{field}.name", service["name"])
    port = service.get("port") or {}
    if port.get("name") and port.get("number"):
        why = "cannot set both port name & port number"
        errors.append(bad_value(f"{field}.port", port, why))
    elif port.get("name"):
        errors += port_name(f"{field}.port.name", port["name"])
    elif port.get("number"):
        errors += port_number(f"{field}.port.number", port["number"])
    else:
        errors.append(required(field, "port name or number is required"))
    return errors


class IngressStrategy(Strategy):
    first_status = {"loadBalancer": {}}
    defaults = {"spec": {}}
    rules = {
        "spec": _some_rule,
        "spec.ingressClassName": dns_subdomain,
        "spec.defaultBackend": _backend,
        "spec.tls[*].hosts[*]": _name,
        "spec.tls[*].secretName": dns_subdomain,
        "spec.rules[*].host": _no_address,
        "spec.rules[*].http": needs("paths"),
        "spec.rules[*].http.paths[*]": (needs("pathType", "backend"), _path),
        "spec.rules[*].http.paths[*].pathType": one_of("Exact", "ImplementationSpecific", "Prefix"),
        "spec.rules[*].http.paths[*].backend": _backend,
    }


def _controller(field: str, controller: str) -> list[FieldError]:
    domain, slash, path = controller.partition("/")
    if not slash:
        why = 'must be a domain-prefixed path (such as "acme.io/foo")'
        return [bad_value(field, controller, why)]
    return dns_subdomain(field, domain) if "/" in path else qualified_name(field, controller)


class IngressClassStrategy(Strategy):
    defaults = {"spec": {}}
    rules = {"spec.controller": _controller}
    immutable = ("spec.controller",)


class SecretStrategy(Strategy):
    defaults = {"type": "Opaque"}
    immutable = ("type",)

    def default(self, new: Json, old: Json | None) -> None:
        super().default(new, old)
        for key, text in new.pop("stringData", {}).items():
            encoded = base64.b64encode(text.encode()).decode()
            new.setdefault("data", {})[key] = encoded

    def validate(self, new: Json, old: Json | None) -> list[FieldError]:
        data: dict[str, str] = new.get("data", {})
        errors, size = super().validate(new, old), 0
        for key, text in data.items():
            try:
                size += len(base64.b64decode(text, validate=True))
            except (binascii.Error, ValueError):
                errors.append(bad_value(f"data[{key}]", "", "must be in base64"))
        if size > _SECRET_BYTES:
            errors.append(bad_value("data", "", f"must have at most {_SECRET_BYTES} bytes"))
        if new["type"] == _TLS_SECRET:
            errors += [required(f"data[{key}]") for key in _TLS_KEYS if key not in data]
        if (
            old
            and old.get("immutable")
            and (data != old.get("data", {}) or not new.get("immutable"))
        ):
            errors.append(not_allowed("data", "field is immutable when `immutable` is set"))
        return errors

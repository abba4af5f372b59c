"""Ingresses, IngressClasses and the Secrets with their certificates: defaults and validation."""

import base64
import binascii

from ebpf_lb.lab.apiserver.errors import FieldError, bad_value, not_allowed, required
from ebpf_lb.lab.apiserver.store import Json
from ebpf_lb.lab.apiserver.strategies.base import Strategy
from ebpf_lb.lab.apiserver.validation import (
    dns_subdomain,
    ip_family,
    one_of,
    port_name,
    port_number,
    qualified_name,
)

_PATH_TYPES = ("Exact", "ImplementationSpecific", "Prefix")
_NOT_IN_PATHS = ("//", "/./", "/../", "%2f", "%2F")
_NOT_AT_END = ("/..", "/.")
_TLS_SECRET = "kubernetes.io/tls"
_TLS_KEYS = ("tls.crt", "tls.key")
_SECRET_BYTES = 1 << 20


class IngressStrategy(Strategy):
    def default(self, new: Json, old: Json | None) -> None:
        new.setdefault("spec", {})
        new.setdefault("status", {"loadBalancer": {}})

    def validate(self, new: Json, old: Json | None) -> list[FieldError]:
        spec: Json = new["spec"]
        errors = []
        if not spec.get("rules") and not spec.get("defaultBackend"):
            text = "either `defaultBackend` or `rules` must be specified"
            errors.append(bad_value("spec", spec, text))
        if name := spec.get("ingressClassName"):
            errors += dns_subdomain("spec.ingressClassName", name)
        if backend := spec.get("defaultBackend"):
            errors += _backend_errors(backend, "spec.defaultBackend")
        for index, entry in enumerate(spec.get("tls", ())):
            for position, host in enumerate(entry.get("hosts", ())):
                errors += _host_errors(f"spec.tls[{index}].hosts[{position}]", host)
            if secret := entry.get("secretName"):
                errors += dns_subdomain(f"spec.tls[{index}].secretName", secret)
        for index, rule in enumerate(spec.get("rules", ())):
            errors += _rule_errors(rule, f"spec.rules[{index}]")
        return errors


def _rule_errors(rule: Json, field: str) -> list[FieldError]:
    errors = []
    if host := rule.get("host"):
        if ip_family(host):
            errors.append(bad_value(f"{field}.host", host, "must be a DNS name, not an IP address"))
        else:
            errors += _host_errors(f"{field}.host", host)
    if "http" not in rule:
        return errors
    paths: list[Json] = rule["http"].get("paths", [])
    if not paths:
        errors.append(required(f"{field}.http.paths"))
    for index, path in enumerate(paths):
        errors += _path_errors(path, f"{field}.http.paths[{index}]")
    return errors


def _host_errors(field: str, host: str) -> list[FieldError]:
    """A name, whose first label may be `*`."""
    return dns_subdomain(field, host.removeprefix("*."))


def _path_errors(path: Json, field: str) -> list[FieldError]:
    errors = []
    kind, text = path.get("pathType"), path.get("path", "")
    if kind is None:
        errors.append(required(f"{field}.pathType", "pathType must be specified"))
    else:
        errors += one_of(f"{field}.pathType", kind, _PATH_TYPES)
    if kind in ("Exact", "Prefix"):
        if not text.startswith("/"):
            errors.append(bad_value(f"{field}.path", text, "must be an absolute path"))
        errors += [
            bad_value(f"{field}.path", text, f"must not contain '{part}'")
            for part in _NOT_IN_PATHS
            if part in text
        ]
        errors += [
            bad_value(f"{field}.path", text, f"cannot end with '{part}'")
            for part in _NOT_AT_END
            if text.endswith(part)
        ]
    elif text and not text.startswith("/"):
        errors.append(bad_value(f"{field}.path", text, "must be an absolute path"))
    return [*errors, *_backend_errors(path.get("backend") or {}, f"{field}.backend")]


def _backend_errors(backend: Json, field: str) -> list[FieldError]:
    service, resource = backend.get("service"), backend.get("resource")
    if service and resource:
        text = "cannot set both resource and service backends"
        return [bad_value(field, backend, text)]
    if resource:
        return [] if resource.get("name") else [required(f"{field}.resource.name")]
    if not service:
        return [required(field, "must specify either a service or a resource")]
    errors = []
    if not service.get("name"):
        errors.append(required(f"{field}.service.name"))
    else:
        errors += dns_subdomain(f"{field}.service.name", service["name"])
    port = service.get("port") or {}
    if port.get("name") and port.get("number"):
        errors.append(
            bad_value(f"{field}.service.port", port, "cannot set both port name & port number")
        )
    elif port.get("name"):
        errors += port_name(f"{field}.service.port.name", port["name"])
    elif port.get("number"):
        errors += port_number(f"{field}.service.port.number", port["number"])
    else:
        errors.append(required(f"{field}.service", "port name or number is required"))
    return errors


class IngressClassStrategy(Strategy):
    def default(self, new: Json, old: Json | None) -> None:
        new.setdefault("spec", {})

    def validate(self, new: Json, old: Json | None) -> list[FieldError]:
        controller = new["spec"].get("controller", "")
        if old and controller != old["spec"].get("controller", ""):
            return [bad_value("spec.controller", controller, "field is immutable")]
        if not controller:
            return []
        if "/" not in controller:
            text = 'must be a domain-prefixed path (such as "acme.io/foo")'
            return [bad_value("spec.controller", controller, text)]
        domain, _, path = controller.partition("/")
        if "/" in path:
            return dns_subdomain("spec.controller", domain)
        return qualified_name("spec.controller", controller)


class SecretStrategy(Strategy):
    def default(self, new: Json, old: Json | None) -> None:
        new.setdefault("type", "Opaque")
        for key, text in new.pop("stringData", {}).items():
            encoded = base64.b64encode(text.encode()).decode()
            new.setdefault("data", {})[key] = encoded

    def validate(self, new: Json, old: Json | None) -> list[FieldError]:
        data: dict[str, str] = new.get("data", {})
        errors, size = [], 0
        for key, text in data.items():
            try:
                size += len(base64.b64decode(text, validate=True))
            except (binascii.Error, ValueError):
                errors.append(bad_value(f"data[{key}]", "", "must be in base64"))
        if size > _SECRET_BYTES:
            errors.append(bad_value("data", "", f"must have at most {_SECRET_BYTES} bytes"))
        if new["type"] == _TLS_SECRET:
            errors += [required(f"data[{key}]") for key in _TLS_KEYS if key not in data]
        if old:
            if new["type"] != old["type"]:
                errors.append(bad_value("type", new["type"], "field is immutable"))
            if old.get("immutable") and (data != old.get("data", {}) or not new.get("immutable")):
                errors.append(not_allowed("data", "field is immutable when `immutable` is set"))
        return errors

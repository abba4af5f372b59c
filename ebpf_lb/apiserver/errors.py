"""Failures as the API tells them: Status objects with code, reason, message and causes.

Reasons and shapes are those of apimachinery (`pkg/api/errors`, `pkg/util/validation/field`).
"""

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from ebpf_lb.apiserver.kinds import Kind


class StatusError(Exception):
    """A request that fails; `body()` is what the client gets."""

    def __init__(
        self,
        code: int,
        reason: str,
        message: str,
        details: dict[str, Any] | None = None,
        metadata: dict[str, Any] | None = None,
    ) -> None:
        super().__init__(message)
        self.code = code
        self.reason = reason
        self.message = message
        self.details = details
        self.metadata = metadata or {}

    def body(self) -> dict[str, Any]:
        status: dict[str, Any] = {
            "kind": "Status",
            "apiVersion": "v1",
            "metadata": self.metadata,
            "status": "Failure",
            "message": self.message,
            "reason": self.reason,
        }
        if self.details:
            status["details"] = self.details
        return status | {"code": self.code}


_CAUSES = {
    "Invalid value": "FieldValueInvalid",
    "Required value": "FieldValueRequired",
    "Unsupported value": "FieldValueNotSupported",
    "Duplicate value": "FieldValueDuplicate",
    "Forbidden": "FieldValueForbidden",
}


@dataclass(frozen=True, slots=True)
class FieldError:
    """One thing that is wrong with one field of an object."""

    field: str
    problem: str
    text: str

    @property
    def message(self) -> str:
        return self.problem + (f": {self.text}" if self.text else "")

    def cause(self) -> dict[str, str]:
        return {"reason": _CAUSES[self.problem], "message": self.message, "field": self.field}

    def __str__(self) -> str:
        return f"{self.field}: {self.message}"


def _json(value: Any) -> str:
    return json.dumps(value, separators=(",", ":"))


def bad_value(field: str, value: Any, detail: str) -> FieldError:
    return FieldError(field, "Invalid value", f"{_json(value)}: {detail}")


def required(field: str, detail: str = "") -> FieldError:
    return FieldError(field, "Required value", detail)


def unsupported(field: str, value: Any, supported: Iterable[str]) -> FieldError:
    choices = ", ".join(json.dumps(choice) for choice in sorted(supported))
    return FieldError(
        field, "Unsupported value", f"{json.dumps(value)}: supported values: {choices}"
    )


def duplicate(field: str, value: Any) -> FieldError:
    return FieldError(field, "Duplicate value", _json(value))


def not_allowed(field: str, detail: str) -> FieldError:
    return FieldError(field, "Forbidden", detail)


def _details(kind: Kind, name: str) -> dict[str, Any]:
    group = {"group": kind.group} if kind.group else {}
    return ({"name": name} if name else {}) | group | {"kind": kind.plural}


def not_found(kind: Kind, name: str) -> StatusError:
    return StatusError(404, "NotFound", f'{kind.resource} "{name}" not found', _details(kind, name))


def unknown_path() -> StatusError:
    return StatusError(404, "NotFound", "the server could not find the requested resource", {})


def already_exists(kind: Kind, name: str) -> StatusError:
    return StatusError(
        409, "AlreadyExists", f'{kind.resource} "{name}" already exists', _details(kind, name)
    )


def conflict(kind: Kind, name: str, why: str = "") -> StatusError:
    why = why or (
        "the object has been modified; please apply your changes to the latest version and "
        "try again"
    )
    return StatusError(
        409,
        "Conflict",
        f'Operation cannot be fulfilled on {kind.resource} "{name}": {why}',
        _details(kind, name),
    )


def invalid(kind: Kind, name: str, errors: Sequence[FieldError]) -> StatusError:
    text = str(errors[0]) if len(errors) == 1 else f"[{', '.join(map(str, errors))}]"
    group = {"group": kind.group} if kind.group else {}
    return StatusError(
        422,
        "Invalid",
        f'{kind.qualified_name} "{name}" is invalid: {text}',
        {"name": name} | group | {"kind": kind.name, "causes": [e.cause() for e in errors]},
    )


def bad_request(message: str, causes: list[dict[str, str]] | None = None) -> StatusError:
    return StatusError(400, "BadRequest", message, {"causes": causes} if causes else None)


def forbidden(
    kind: Kind, name: str, why: str, causes: list[dict[str, str]] | None = None
) -> StatusError:
    details = _details(kind, name) | ({"causes": causes} if causes else {})
    return StatusError(403, "Forbidden", f'{kind.resource} "{name}" is forbidden: {why}', details)


def expired(message: str, continue_token: str = "") -> StatusError:
    """410: the version asked for has left the history; the client must list again."""
    metadata = {"continue": continue_token} if continue_token else None
    return StatusError(410, "Expired", message, metadata=metadata)


def too_large_version(asked: int, current: int) -> StatusError:
    """A list from a future that has not come (client-go knows it by its cause and waits)."""
    cause = {"reason": "ResourceVersionTooLarge", "message": "Too large resource version"}
    return StatusError(
        504,
        "Timeout",
        f"Timeout: Too large resource version: {asked}, current: {current}",
        {"causes": [cause], "retryAfterSeconds": 1},
    )


def unauthorized() -> StatusError:
    return StatusError(401, "Unauthorized", "Unauthorized")


def method_not_allowed() -> StatusError:
    return StatusError(
        405, "MethodNotAllowed", "the server does not allow this method on the requested resource"
    )


def unsupported_media_type(supported: Iterable[str]) -> StatusError:
    return StatusError(
        415,
        "UnsupportedMediaType",
        "the body of the request was in an unknown format - accepted media types include: "
        f"{', '.join(supported)} (this server speaks JSON alone: write a manifest, and apply it)",
    )

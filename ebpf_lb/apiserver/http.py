"""The protocol: paths, verbs, lists, bodies. Watches are in `watch`."""

import base64
import hmac
import json
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from aiohttp import web

from ebpf_lb.apiserver import discovery, errors, openapi, patch
from ebpf_lb.apiserver.kinds import BY_RESOURCE, Has, Kind
from ebpf_lb.apiserver.registry import (
    DeleteOptions,
    OnUnknown,
    Registry,
    drop_unknown,
    refuse_unknown,
)
from ebpf_lb.apiserver.scale import Scale
from ebpf_lb.apiserver.schema import UnknownField
from ebpf_lb.apiserver.selectors import object_matcher
from ebpf_lb.apiserver.store import Compacted, Json, Stored
from ebpf_lb.apiserver.table import table
from ebpf_lb.apiserver.watch import WatchRequest, stream_watch

log = logging.getLogger(__name__)

_MAX_BODY_BYTES = 16 * 2**20
_JSON_TYPES = ("application/json",)
_TRUE = ("1", "true", "True", "TRUE", "t")

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


@dataclass(frozen=True, slots=True)
class Target:
    """What a path names: all objects of a kind, those of a namespace, one, or a part of one."""

    kind: Kind
    namespace: str | None
    name: str = ""
    subresource: str = ""


def parse_path(path: str) -> Target:
    """StatusError (404) if the path names nothing that this server has."""
    match path.strip("/").split("/"):
        case ["api", version, *rest]:
            group = ""
        case ["apis", group, version, *rest]:
            pass
        case _:
            raise errors.unknown_path()
    namespace: str | None = None
    # /namespaces/NAME and /namespaces/NAME/status are about the namespace itself.
    if len(rest) > 2 and rest[0] == "namespaces" and rest[2] not in ("status", "finalize"):
        namespace, rest = rest[1], rest[2:]
    kind = BY_RESOURCE.get((group, version, rest[0] if rest else ""))
    if kind is None or len(rest) > 3 or (namespace is not None and not kind.namespaced):
        raise errors.unknown_path()
    name, subresource = (*rest[1:], "", "")[:2]
    known = {"": True, "status": Has.STATUS in kind.has, "scale": Has.SCALE in kind.has}
    if not known.get(subresource) or (name and kind.namespaced and namespace is None):
        raise errors.unknown_path()
    return Target(kind, namespace, name, subresource)


@dataclass(slots=True)
class Api:
    """Answers requests from a registry. `token`: what TLS clients must show."""

    registry: Registry
    token: str
    bookmark_interval_s: float = 60.0

    def application(self, *, authenticate: bool) -> web.Application:
        middlewares = [self._status_errors]
        if authenticate:
            middlewares.append(self._authenticate)
        app = web.Application(middlewares=middlewares, client_max_size=_MAX_BODY_BYTES)
        app.router.add_route("*", "/{path:.*}", self._handle)
        return app

    # --- around every request

    @web.middleware
    async def _status_errors(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        try:
            return await handler(request)
        except errors.StatusError as error:
            return _json_response(error.body(), error.code)
        except web.HTTPRequestEntityTooLarge:
            failure = errors.StatusError(
                413, "RequestEntityTooLarge", f"limit is {_MAX_BODY_BYTES} bytes"
            )
        except (ConnectionError, web.HTTPException):
            raise
        except Exception as problem:
            log.exception("%s %s failed", request.method, request.path_qs)
            failure = errors.StatusError(500, "InternalError", f"internal error: {problem!r}")
        return _json_response(failure.body(), failure.code)

    @web.middleware
    async def _authenticate(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        given = request.headers.get("Authorization", "")
        if not hmac.compare_digest(given, f"Bearer {self.token}"):
            raise errors.unauthorized()
        return await handler(request)

    async def _handle(self, request: web.Request) -> web.StreamResponse:
        path = request.path.rstrip("/")
        if path in ("/readyz", "/livez", "/healthz"):
            return web.Response(text="ok")
        if request.method == "GET":
            document = discovery.document(path) or openapi.document(path)
            if document is not None:
                return _json_response(document)
        target = parse_path(path)
        if target.subresource == "scale":
            return await self._scale(request, target)
        if request.method == "GET" and request.query.get("watch") in _TRUE:
            return await self._watch(request, target)
        match request.method, bool(target.name):
            case "GET", True:
                stored = self._get(target)
                if (include := _table_wanted(request)) is None:
                    return _object_response(stored)
                version = {"resourceVersion": stored.metadata["resourceVersion"]}
                return _json_response(table(target.kind, [stored], version, include))
            case "GET", False:
                return self._list(request, target)
            case ("POST", False) | ("PUT" | "PATCH", True):
                return await self._write(request, target)
            case "DELETE", True:
                return await self._delete(request, target)
        raise errors.method_not_allowed()

    # --- reading

    def _get(self, target: Target) -> Stored:
        return self.registry.get(target.kind, target.namespace or "", target.name)

    def _list(self, request: web.Request, target: Target) -> web.Response:
        query, store = request.query, self.registry.store
        matches = object_matcher(query.get("labelSelector", ""), query.get("fieldSelector", ""))
        limit = _whole_number(query, "limit", 0)
        version, start = store.version, ""
        items: list[Stored]
        if token := query.get("continue", ""):
            asked, start = _decode_continue(token)
            try:
                if asked >= 0:
                    version = asked
                    items = store.objects_at(target.kind, version, target.namespace)
                else:
                    items = store.objects(target.kind, target.namespace)
            except Compacted:
                raise errors.expired(
                    "The provided continue parameter is too old to display a consistent list "
                    "result. You can start a new list without the continue parameter, or use the "
                    "continue token in this response to retrieve the remainder of the results.",
                    _encode_continue(-1, start),
                ) from None
        else:
            asked = _whole_number(query, "resourceVersion", 0)
            if asked > version:
                raise errors.too_large_version(asked, version)
            items = store.objects(target.kind, target.namespace)
        items = [item for item in items if item.key > start] if start else items
        if matches:
            items = [item for item in items if matches(item.object)]
        metadata: Json = {"resourceVersion": str(version)}
        if limit and len(items) > limit:
            metadata["continue"] = _encode_continue(version, items[limit - 1].key)
            if not matches:
                metadata["remainingItemCount"] = len(items) - limit
            items = items[:limit]
        kind = target.kind
        if (include := _table_wanted(request)) is not None:
            return _json_response(table(kind, items, metadata, include))
        head = json.dumps(
            {"kind": f"{kind.name}List", "apiVersion": kind.api_version, "metadata": metadata}
        )
        body = b"".join(
            (head[:-1].encode(), b',"items":[', b",".join(i.item_json for i in items), b"]}\n")
        )
        return web.Response(body=body, content_type="application/json")

    async def _watch(self, request: web.Request, target: Target) -> web.StreamResponse:
        query = request.query
        fields = query.get("fieldSelector", "")
        if target.name:
            fields = f"{fields},metadata.name={target.name}"
        watch = WatchRequest(
            kind=target.kind,
            namespace=target.namespace,
            version=query.get("resourceVersion", ""),
            matches=object_matcher(query.get("labelSelector", ""), fields),
            bookmarks=query.get("allowWatchBookmarks") in _TRUE,
            initial_events=query.get("sendInitialEvents") in _TRUE,
            timeout_s=_whole_number(query, "timeoutSeconds", 0),
            bookmark_interval_s=self.bookmark_interval_s,
            table_include=_table_wanted(request),
        )
        return await stream_watch(self.registry.store, watch, request)

    # --- writing

    async def _write(self, request: web.Request, target: Target) -> web.Response:
        """Creates, replaces or patches an object."""
        kind, namespace = target.kind, target.namespace or ""
        if kind.namespaced and not namespace:
            raise errors.bad_request(
                "an empty namespace may not be set during creation: name one in the path"
            )
        body = await _read_json(request)
        unknown = _FieldValidation(request)
        how: dict[str, Any] = {
            "dry_run": request.query.get("dryRun") == "All",
            "on_unknown": unknown.on_unknown,
        }
        registry, place = self.registry, (kind, namespace, target.name)
        match request.method:
            case "POST":
                stored = registry.create(kind, namespace, body, **how)
            case "PUT":
                stored = registry.update(*place, body, subresource=target.subresource, **how)
            case _:
                change = (request.content_type, body)
                stored = registry.patch(*place, *change, subresource=target.subresource, **how)
        return unknown.warn(_object_response(stored, 201 if request.method == "POST" else 200))

    async def _delete(self, request: web.Request, target: Target) -> web.Response:
        if target.subresource:
            raise errors.method_not_allowed()
        options = await _delete_options(request)
        kind, namespace = target.kind, target.namespace or ""
        stored = self.registry.delete(kind, namespace, target.name, options)
        is_gone = self.registry.store.get(kind, namespace, target.name) is None
        if Has.LAST_WORDS in kind.has or not is_gone:
            return _object_response(stored)
        details = {"name": stored.name, "kind": kind.plural, "uid": stored.uid}
        if kind.group:
            details["group"] = kind.group
        return _json_response(
            {
                "kind": "Status",
                "apiVersion": "v1",
                "metadata": {},
                "status": "Success",
                "details": details,
            }
        )

    async def _scale(self, request: web.Request, target: Target) -> web.Response:
        scale = Scale(self.registry, target.kind, target.namespace or "", target.name)
        match request.method:
            case "GET":
                return _json_response(scale.read())
            case "PUT":
                return _json_response(scale.write(await _read_json(request)))
            case "PATCH":
                change = await _read_json(request)
                return _json_response(scale.patch(request.content_type, change))
        raise errors.method_not_allowed()


class _FieldValidation:
    """What a request wants to happen to fields that its object does not have: `fieldValidation` is
    Ignore, Warn (the default), or Strict."""

    def __init__(self, request: web.Request) -> None:
        self._warnings: list[str] = []
        match request.query.get("fieldValidation", "Warn"):
            case "Ignore":
                self.on_unknown: OnUnknown = drop_unknown
            case "Warn":
                self.on_unknown = self._note
            case "Strict":
                self.on_unknown = refuse_unknown
            case other:
                raise errors.bad_request(
                    f"fieldValidation: Unsupported value: {json.dumps(other)}: supported values: "
                    '"Ignore", "Strict", "Warn"'
                )

    def _note(self, kind: Kind, fields: list[UnknownField]) -> None:
        self._warnings += map(str, fields)

    def warn(self, response: web.Response) -> web.Response:
        for text in self._warnings:
            quoted = text.replace("\\", "\\\\").replace('"', '\\"')
            response.headers.add("Warning", f'299 - "{quoted}"')
        return response


# --- bodies and parameters


def _table_wanted(request: web.Request) -> str | None:
    """What a Table is to include besides its cells; None where no Table is asked for."""
    if "as=Table" not in request.headers.get("Accept", "").replace(" ", ""):
        return None
    include = request.query.get("includeObject", "Metadata")
    if include not in ("None", "Metadata", "Object"):
        raise errors.bad_request(f"unrecognized includeObject value: {include!r}")
    return include


def _json_response(body: Json, status: int = 200) -> web.Response:
    text = json.dumps(body, separators=(",", ":")) + "\n"
    return web.Response(text=text, status=status, content_type="application/json")


def _object_response(stored: Stored, status: int = 200) -> web.Response:
    return web.Response(body=stored.json + b"\n", status=status, content_type="application/json")


async def _read_json(request: web.Request) -> Any:
    types = patch.TYPES if request.method == "PATCH" else _JSON_TYPES
    if request.content_type not in (*types, "application/octet-stream"):  # none given
        raise errors.unsupported_media_type(types)
    try:
        return json.loads(await request.read() or b"{}")
    except ValueError as error:
        raise errors.bad_request(f"the body of the request is not JSON: {error}") from None


def _whole_number(query: Any, name: str, default: int) -> int:
    text = query.get(name, "")
    if not text:
        return default
    if not text.isdigit():
        raise errors.bad_request(f"Invalid value: {text!r}: {name} must be a whole number")
    return int(text)


async def _delete_options(request: web.Request) -> DeleteOptions:
    """From the body and from the query, which wins."""
    body = await _read_json(request)
    if not isinstance(body, dict):
        raise errors.bad_request("the body of the request is not a JSON object")
    preconditions = body.get("preconditions") or {}
    grace_s = body.get("gracePeriodSeconds")
    if "gracePeriodSeconds" in request.query:
        grace_s = _whole_number(request.query, "gracePeriodSeconds", 0)
    return DeleteOptions(
        grace_s=grace_s,
        propagation=request.query.get("propagationPolicy") or body.get("propagationPolicy") or "",
        uid=preconditions.get("uid") or "",
        resource_version=preconditions.get("resourceVersion") or "",
        dry_run=request.query.get("dryRun") == "All" or body.get("dryRun") == ["All"],
    )


def _encode_continue(version: int, last_key: str) -> str:
    return base64.urlsafe_b64encode(json.dumps([version, last_key]).encode()).decode().rstrip("=")


def _decode_continue(token: str) -> tuple[int, str]:
    """(version, last key); version -1 stands for "as it is now"."""
    try:
        padded = token + "=" * (-len(token) % 4)
        version, last_key = json.loads(base64.urlsafe_b64decode(padded))
        return int(version), str(last_key)
    except (ValueError, TypeError):
        raise errors.bad_request("continue key is not valid") from None

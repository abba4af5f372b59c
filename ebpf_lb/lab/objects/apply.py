"""`apply` and `delete` of manifests, as kubectl does them."""

import copy
import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from ebpf_lb.apiserver.kinds import NAMESPACE, Has, Kind
from ebpf_lb.lab.objects.client import ApiError, Client
from ebpf_lb.lab.objects.manifest import Document, ManifestError, read_manifests
from ebpf_lb.lab.objects.merge import three_way_merge

LAST_APPLIED = "kubectl.kubernetes.io/last-applied-configuration"
# Somebody else may change an object between our reading and our writing.
_ATTEMPTS = 5

Json = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Result:
    """What became of one object."""

    kind: Kind
    namespace: str
    name: str
    action: str  # created, configured, unchanged, deleted

    def __str__(self) -> str:
        """`deployment.apps/web created`, as kubectl says it."""
        group = f".{self.kind.group}" if self.kind.group else ""
        return f"{self.kind.name.lower()}{group}/{self.name} {self.action}"


def apply_files(client: Client, files: Sequence[str], namespace: str = "default") -> list[Result]:
    """Makes the cluster have what the manifests say. `namespace` is for objects that name none.

    Raises ManifestError at the first document that is refused; nothing of that document is
    applied, what stood before it is.
    """
    return list(apply_each(client, read_manifests(files), namespace))


def apply_each(
    client: Client, documents: Iterable[Document], namespace: str = "default"
) -> Iterator[Result]:
    """The same, one object after the other."""
    for document in documents:
        if len(document.items) > 1:
            _try_out(client, document, namespace)
        for index, (kind, object_) in enumerate(document.items):
            try:
                yield _apply(client, kind, object_, namespace)
            except ApiError as error:
                raise refused(document, index, error.message, error.causes) from None


def delete_files(client: Client, files: Sequence[str], namespace: str = "default") -> list[Result]:
    """Deletes what the manifests name; objects that do not exist are left out of the result."""
    return list(delete_each(client, files, namespace))


def delete_each(
    client: Client, files: Sequence[str], namespace: str = "default"
) -> Iterator[Result]:
    """The same, one object after the other, in the manifests' order."""
    for document in read_manifests(files):
        for index, (kind, object_) in enumerate(document.items):
            place = namespace_of(kind, object_, namespace)
            name = object_["metadata"].get("name", "")
            try:
                client.delete(kind.path(place, name))
            except ApiError as error:
                if error.status == 404:
                    continue
                raise refused(document, index, error.message, error.causes) from None
            yield Result(kind, place, name, "deleted")


def _try_out(client: Client, document: Document, namespace: str) -> None:
    """Lets the server check every item of a List before the first one is stored."""
    new_namespaces = {
        object_["metadata"].get("name") for kind, object_ in document.items if kind is NAMESPACE
    }
    for index, (kind, object_) in enumerate(document.items):
        try:
            _apply(client, kind, object_, namespace, dry_run=True)
        except ApiError as error:
            if error.status == 404 and namespace_of(kind, object_, namespace) in new_namespaces:
                continue  # its namespace is made by this very document
            raise refused(document, index, error.message, error.causes) from None


def refused(document: Document, index: int, message: str, causes: Sequence[Json]) -> ManifestError:
    """The server's refusal in one sentence that names the fields."""
    if causes and all(cause.get("field") for cause in causes):
        message = "; ".join(f"{cause['field']}: {cause['message']}" for cause in causes)
    return document.problem(index, message)


def namespace_of(kind: Kind, object_: Json, default: str) -> str:
    """ "" for kinds without."""
    return str(object_["metadata"].get("namespace") or default) if kind.namespaced else ""


def _apply(
    client: Client, kind: Kind, object_: Json, namespace: str, *, dry_run: bool = False
) -> Result:
    place = namespace_of(kind, object_, namespace)
    params: dict[str, str | int] = {"dryRun": "All"} if dry_run else {}
    wanted = _with_record(object_, place)
    name = wanted["metadata"].get("name", "")
    for attempt in range(_ATTEMPTS):
        try:
            live = client.get(kind.path(place, name)) if name else None
        except ApiError as error:
            if error.status != 404:
                raise
            live = None
        try:
            if live is None:
                created = client.create(kind.collection_path(place), wanted, **params)
                return Result(kind, place, created["metadata"]["name"], "created")
            return _configure(client, kind, live, wanted, params)
        except ApiError as error:
            # Changed, made or removed meanwhile (409, AlreadyExists too): look again.
            last_attempt = attempt == _ATTEMPTS - 1
            if error.status != 409 or last_attempt or error.reason == "Invalid":
                raise
    raise AssertionError("the last attempt returns or raises")


def _configure(
    client: Client, kind: Kind, live: Json, wanted: Json, params: dict[str, str | int]
) -> Result:
    metadata = live["metadata"]
    place, name = metadata.get("namespace", ""), metadata["name"]
    record = (metadata.get("annotations") or {}).get(LAST_APPLIED)
    try:
        last = json.loads(record) if record else {}
    except ValueError:
        last = {}
    merged = three_way_merge(last, live, wanted, kind.schema)
    # The status is not a manifest's to set, and the version makes sure that nothing is lost that
    # was written meanwhile.
    merged["metadata"]["resourceVersion"] = metadata["resourceVersion"]
    if Has.STATUS in kind.has:
        merged.pop("status", None)
    updated = client.update(kind.path(place, name), merged, **params)
    same = updated["metadata"]["resourceVersion"] == metadata["resourceVersion"]
    return Result(kind, place, name, "unchanged" if same else "configured")


def _with_record(object_: Json, place: str) -> Json:
    """The manifest with its namespace and, as an annotation, with itself."""
    wanted = copy.deepcopy(object_)
    metadata = wanted.setdefault("metadata", {})
    if place:
        metadata["namespace"] = place
    metadata.pop("resourceVersion", None)
    annotations = metadata.get("annotations") or {}
    annotations.pop(LAST_APPLIED, None)
    metadata["annotations"] = annotations
    record = json.dumps(wanted, separators=(",", ":"), sort_keys=True) + "\n"
    metadata["annotations"] = annotations | {LAST_APPLIED: record}
    return wanted

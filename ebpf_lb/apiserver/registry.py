"""What an operation on an object means: checks, defaults, versions, deletion.

Every method is atomic (it does not await) and either stores a complete new version or raises a
StatusError and changes nothing. The HTTP layer and the controllers both work through it.
"""

import random
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from ebpf_lb.apiserver import errors, patch, schema
from ebpf_lb.apiserver.kinds import KINDS, NAMESPACE, POD, Has, Kind
from ebpf_lb.apiserver.store import Json, Store, Stored
from ebpf_lb.apiserver.strategies.base import Strategy
from ebpf_lb.apiserver.validation import metadata_errors

# Names end with letters that spell no words and are not mistaken for each other.
_SUFFIX_LETTERS = "bcdfghjklmnpqrstvwxz2456789"
_ETERNAL_NAMESPACES = ("default", "kube-system", "kube-public")


@dataclass(frozen=True, slots=True)
class DeleteOptions:
    """grace_s: None for the object's own. propagation: "Orphan" spares what the object owns."""

    grace_s: int | None = None
    propagation: str = ""
    uid: str = ""
    resource_version: str = ""
    dry_run: bool = False


# What is to be done about fields that an object does not have: raise a StatusError, warn, nothing.
OnUnknown = Callable[[Kind, list[schema.UnknownField]], None]


def drop_unknown(kind: Kind, fields: list[schema.UnknownField]) -> None:
    """They are left out, and nobody is told."""


def refuse_unknown(kind: Kind, fields: list[schema.UnknownField]) -> None:
    """As with `fieldValidation=Strict`."""
    text = (
        f'{kind.name} in version "{kind.version}" cannot be handled as a {kind.name}: strict '
        f"decoding error: {', '.join(map(str, fields))}"
    )
    causes = [
        {
            "reason": "FieldValueNotSupported",
            "message": f"unknown field{field.hint}",
            "field": field.field,
        }
        for field in fields
    ]
    raise errors.bad_request(text, causes)


class Registry:
    """The API's operations on one store."""

    def __init__(
        self,
        store: Store,
        strategies: Mapping[Kind, Strategy],
        *,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
        rng: random.Random | None = None,
    ) -> None:
        self.store = store
        self.now = now
        self._strategies = strategies
        self._plain = Strategy()
        self._rng = rng or random.Random()

    def strategy(self, kind: Kind) -> Strategy:
        return self._strategies.get(kind, self._plain)

    def timestamp(self) -> str:
        """Now, as in `creationTimestamp` (RFC 3339, UTC, seconds)."""
        return self.now().strftime("%Y-%m-%dT%H:%M:%SZ")

    def suffix(self, length: int = 5) -> str:
        return "".join(self._rng.choices(_SUFFIX_LETTERS, k=length))

    def get(self, kind: Kind, namespace: str, name: str) -> Stored:
        stored = self.store.get(kind, namespace, name)
        if stored is None:
            raise errors.not_found(kind, name)
        return stored

    # --- create

    def create(
        self,
        kind: Kind,
        namespace: str,
        object_: Json,
        *,
        dry_run: bool = False,
        on_unknown: OnUnknown = drop_unknown,
    ) -> Stored:
        new = self._decode(kind, object_, on_unknown)
        metadata = new["metadata"]
        self._set_namespace(kind, namespace, metadata)
        if not metadata.get("name") and metadata.get("generateName"):
            metadata["name"] = metadata["generateName"] + self.suffix()
        metadata |= {
            "uid": str(uuid.UUID(int=self._rng.getrandbits(128), version=4)),
            "creationTimestamp": self.timestamp(),
            "resourceVersion": "",
        }
        for field in ("deletionTimestamp", "deletionGracePeriodSeconds", "generation"):
            metadata.pop(field, None)
        if Has.GENERATION in kind.has:
            metadata["generation"] = 1
        strategy = self.strategy(kind)
        strategy.prepare_create(new)
        strategy.default(new, None)
        self._validate(kind, new, None)
        name = metadata["name"]
        self._check_namespace(kind, namespace, name)
        if self.store.get(kind, namespace, name):
            raise errors.already_exists(kind, name)
        if problems := strategy.allocate(new, None):
            raise errors.invalid(kind, name, problems)
        if dry_run:
            return Stored(kind, new)
        stored = self.store.put(kind, new)
        if kind.limit and len(everything := self.store.objects(kind)) > kind.limit:
            self.store.remove(min(everything, key=lambda other: other.version))
        return stored

    def _check_namespace(self, kind: Kind, namespace: str, name: str) -> None:
        if not kind.namespaced:
            return
        home = self.store.get(NAMESPACE, "", namespace)
        if home is None:
            raise errors.not_found(NAMESPACE, namespace)
        if home.terminating:
            why = (
                f"unable to create new content in namespace {namespace} because it is being "
                "terminated"
            )
            cause = {
                "reason": "NamespaceTerminating",
                "message": f"namespace {namespace} is being terminated",
                "field": "metadata.namespace",
            }
            raise errors.forbidden(kind, name, why, [cause])

    def _set_namespace(self, kind: Kind, namespace: str, metadata: Json) -> None:
        if not kind.namespaced:
            metadata.pop("namespace", None)
        elif metadata.setdefault("namespace", namespace) != namespace:
            raise errors.bad_request(
                "the namespace of the provided object does not match the namespace sent on the "
                "request"
            )

    # --- update and patch

    def update(
        self,
        kind: Kind,
        namespace: str,
        name: str,
        object_: Json,
        *,
        subresource: str = "",
        dry_run: bool = False,
        on_unknown: OnUnknown = drop_unknown,
    ) -> Stored:
        """Replaces the object; only its status for the subresource `status`, else all but it."""
        old = self.get(kind, namespace, name)
        new = self._decode(kind, object_, on_unknown)
        metadata = new["metadata"]
        self._set_namespace(kind, namespace, metadata)
        if metadata.setdefault("name", name) != name:
            raise errors.bad_request(
                f"the name of the object ({metadata['name']}) does not match the name on the URL "
                f"({name})"
            )
        if (uid := metadata.get("uid")) and uid != old.uid:
            why = f"Precondition failed: UID in precondition: {uid}, UID in object meta: {old.uid}"
            raise errors.conflict(kind, name, why)
        if (version := metadata.get("resourceVersion")) and version != str(old.version):
            raise errors.conflict(kind, name)
        for field in (
            "uid",
            "creationTimestamp",
            "resourceVersion",
            "generation",
            "deletionTimestamp",
            "deletionGracePeriodSeconds",
        ):
            metadata.pop(field, None)
            if field in old.metadata:
                metadata[field] = old.metadata[field]
        strategy = self.strategy(kind)
        if subresource == "status":
            # Metadata may be written through it, as in the real server; all else stays.
            status = {"status": new["status"]} if "status" in new else {}
            new = (
                {field: value for field, value in old.object.items() if field != "status"}
                | {"metadata": metadata}
                | status
            )
            problems = metadata_errors(kind, metadata) + strategy.validate_status(new)
            if problems:
                raise errors.invalid(kind, name, problems)
        else:
            if Has.STATUS in kind.has:
                new.pop("status", None)
                if "status" in old.object:
                    new["status"] = old.object["status"]
            strategy.prepare_update(new, old.object)
            strategy.default(new, old.object)
            self._validate(kind, new, old.object)
            if problems := strategy.allocate(new, old.object):
                raise errors.invalid(kind, name, problems)
            if Has.GENERATION in kind.has and _content(new) != _content(old.object):
                metadata["generation"] = old.metadata.get("generation", 0) + 1
        if new == old.object:  # nothing changed: no new version, no event
            return old
        if dry_run:
            return Stored(kind, new)
        stored = self.store.put(kind, new)
        if stored.terminating and self._may_go(stored):
            return self.store.remove(stored)
        return stored

    def patch(
        self,
        kind: Kind,
        namespace: str,
        name: str,
        patch_type: str,
        change: Any,
        **how: Any,
    ) -> Stored:
        """As update, with a patch of one of `patch.TYPES`."""
        old = self.get(kind, namespace, name)
        whole = {"kind": kind.name, "apiVersion": kind.api_version} | old.object
        new = patch.apply_patch(patch_type, whole, change, kind.schema)
        return self.update(kind, namespace, name, new, **how)

    def _decode(self, kind: Kind, object_: Any, on_unknown: OnUnknown) -> Json:
        """A copy without nulls and unknown fields, of the right kind and types."""
        if not isinstance(object_, dict):
            raise errors.bad_request("the body of the request is not a JSON object")
        given = (object_.get("apiVersion", kind.api_version), object_.get("kind", kind.name))
        if given != (kind.api_version, kind.name):
            raise errors.bad_request(
                f"the object provided is {given[1]} of {given[0]}, but this is the path of "
                f"{kind.name} of {kind.api_version}"
            )
        unknown: list[schema.UnknownField] = []
        try:
            new: Json = schema.decode(object_, kind.schema, unknown)
        except schema.WrongType as problem:
            cause = {
                "reason": "FieldValueTypeInvalid",
                "message": problem.hint,
                "field": problem.field,
            }
            text = problem.message(kind.name, kind.version)
            raise errors.bad_request(text, [cause]) from None
        if unknown:
            on_unknown(kind, unknown)
        new.pop("apiVersion", None)
        new.pop("kind", None)
        # As in Go's JSON ("omitempty"), nothing and an empty collection are the same.
        metadata = new.setdefault("metadata", {})
        metadata.pop("managedFields", None)
        for field in ("labels", "annotations", "finalizers", "ownerReferences"):
            if not metadata.get(field):
                metadata.pop(field, None)
        return new

    def _validate(self, kind: Kind, new: Json, old: Json | None) -> None:
        strategy = self.strategy(kind)
        problems = metadata_errors(kind, new["metadata"]) + strategy.validate(new, old)
        if problems:
            raise errors.invalid(kind, new["metadata"].get("name", ""), problems)

    # --- delete

    def delete(
        self, kind: Kind, namespace: str, name: str, options: DeleteOptions | None = None
    ) -> Stored:
        """Removes the object, or marks it if a finalizer or a grace period holds it."""
        options = options or DeleteOptions()
        old = self.get(kind, namespace, name)
        if options.uid and options.uid != old.uid:
            raise errors.conflict(
                kind,
                name,
                f"Precondition failed: UID in precondition: {options.uid}, UID in object meta: "
                f"{old.uid}",
            )
        if options.resource_version and options.resource_version != str(old.version):
            raise errors.conflict(kind, name)
        if kind is NAMESPACE and name in _ETERNAL_NAMESPACES:
            raise errors.forbidden(kind, name, "this namespace may not be deleted")
        if options.dry_run:
            return old
        if options.propagation == "Orphan":
            self._orphan(old)
        grace_s = self._grace_s(old, options)
        metadata = dict(old.metadata)
        if grace_s == 0 and not metadata.get("finalizers") and kind is not NAMESPACE:
            return self.store.remove(old)
        if old.terminating and grace_s >= metadata.get("deletionGracePeriodSeconds", 0):
            return old
        deadline = self.now().timestamp() + grace_s
        metadata["deletionTimestamp"] = datetime.fromtimestamp(deadline, UTC).strftime(
            "%Y-%m-%dT%H:%M:%SZ"
        )
        metadata["deletionGracePeriodSeconds"] = grace_s
        if Has.GENERATION in kind.has:
            metadata["generation"] = metadata.get("generation", 0) + 1
        new = old.object | {"metadata": metadata}
        if kind is NAMESPACE:
            del metadata["deletionGracePeriodSeconds"]
            new["status"] = old.status | {"phase": "Terminating"}
        return self.store.put(kind, new)

    def _grace_s(self, stored: Stored, options: DeleteOptions) -> int:
        """Only pods have a grace period, and only those that a kubelet runs."""
        if stored.kind is not POD:
            return 0
        if not stored.spec.get("nodeName") or stored.status.get("phase") in ("Failed", "Succeeded"):
            return 0
        if options.grace_s is not None:
            return max(0, options.grace_s)
        return int(stored.spec.get("terminationGracePeriodSeconds", 30))

    def _may_go(self, stored: Stored) -> bool:
        """Whether nothing holds an object that is marked for deletion any more."""
        if stored.metadata.get("finalizers") or stored.kind is NAMESPACE:
            return False
        return stored.kind is not POD or stored.metadata.get("deletionGracePeriodSeconds") == 0

    def finish_namespace(self, stored: Stored) -> None:
        """Removes a namespace that has become empty."""
        self.store.remove(stored)

    def dependents(self, uid: str, namespace: str) -> list[Stored]:
        """The objects that name `uid` as an owner; owners are never in another namespace."""
        return [
            stored
            for kind in KINDS
            if kind.namespaced
            for stored in self.store.objects(kind, namespace or None)
            if any(owner.get("uid") == uid for owner in stored.metadata.get("ownerReferences", ()))
        ]

    def _orphan(self, owner: Stored) -> None:
        for stored in self.dependents(owner.uid, owner.namespace):
            references = [
                reference
                for reference in stored.metadata["ownerReferences"]
                if reference.get("uid") != owner.uid
            ]
            metadata = stored.metadata | {"ownerReferences": references}
            self.store.put(stored.kind, stored.object | {"metadata": metadata})

    # --- for controllers: writes that no client may do

    def set_status(self, stored: Stored, status: Json) -> Stored:
        """Writes `status` as it is; nothing happens if it is the same."""
        if stored.status == status:
            return stored
        return self.store.put(
            stored.kind, stored.object | {"metadata": dict(stored.metadata), "status": status}
        )

    def bind(self, pod: Stored, node: str) -> Stored:
        """Gives a pod its node (the API's `binding` subresource)."""
        spec = pod.spec | {"nodeName": node}
        return self.store.put(POD, pod.object | {"metadata": dict(pod.metadata), "spec": spec})


def _content(object_: Json) -> Json:
    return {key: value for key, value in object_.items() if key not in ("metadata", "status")}

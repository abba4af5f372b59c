"""The `scale` subresource (autoscaling/v1) of Deployments and StatefulSets."""

from ebpf_lb.apiserver import errors, patch, schema
from ebpf_lb.apiserver.kinds import Kind
from ebpf_lb.apiserver.registry import Registry
from ebpf_lb.apiserver.store import Json, Stored

_SCHEMA = schema.Struct("V1Scale")


class Scale:
    """The number of replicas of one workload. StatusErrors as for the workload itself."""

    def __init__(self, registry: Registry, kind: Kind, namespace: str, name: str) -> None:
        self._registry = registry
        self._kind, self._namespace, self._name = kind, namespace, name

    def _stored(self) -> Stored:
        return self._registry.get(self._kind, self._namespace, self._name)

    def read(self) -> Json:
        stored = self._stored()
        selector = stored.spec.get("selector", {}).get("matchLabels", {})
        return {
            "kind": "Scale",
            "apiVersion": "autoscaling/v1",
            "metadata": {
                key: stored.metadata[key]
                for key in ("name", "namespace", "uid", "resourceVersion", "creationTimestamp")
            },
            "spec": {"replicas": stored.spec["replicas"]},
            "status": {
                "replicas": stored.status.get("replicas", 0),
                "selector": ",".join(f"{key}={value}" for key, value in sorted(selector.items())),
            },
        }

    def write(self, scale: Json) -> Json:
        try:
            scale = schema.decode(scale, _SCHEMA, [])
        except schema.WrongType as problem:
            raise errors.bad_request(problem.message("Scale", "v1")) from None
        stored = self._stored()
        version = scale.get("metadata", {}).get("resourceVersion", "")
        new = stored.object | {
            "metadata": stored.metadata | {"resourceVersion": version},
            "spec": stored.spec | {"replicas": scale.get("spec", {}).get("replicas", 0)},
        }
        self._registry.update(self._kind, self._namespace, self._name, new)
        return self.read()

    def patch(self, patch_type: str, change: object) -> Json:
        return self.write(patch.apply_patch(patch_type, self.read(), change, _SCHEMA))

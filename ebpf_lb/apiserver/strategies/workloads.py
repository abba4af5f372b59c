"""Pods, Deployments and StatefulSets: defaults and validation."""

from typing import Any

from ebpf_lb.apiserver.errors import FieldError, bad_value, not_allowed, required
from ebpf_lb.apiserver.paths import find, set_defaults, value
from ebpf_lb.apiserver.selectors import label_selector
from ebpf_lb.apiserver.store import Json
from ebpf_lb.apiserver.strategies.base import Strategy
from ebpf_lb.apiserver.validation import (
    distinct,
    dns_label,
    labels,
    needs,
    not_negative,
    one_of,
    port_name,
    port_number,
    protocol,
)

# What may change in a pod's spec after creation, of what the lab reads.
_MUTABLE = {
    "containers",
    "initContainers",
    "activeDeadlineSeconds",
    "tolerations",
    "terminationGracePeriodSeconds",
    "schedulingGates",
}


def _same_as_host_port(field: str, spec: Json) -> list[FieldError]:
    """On the node's network a port is the node's."""
    if not spec.get("hostNetwork"):
        return []
    why = "must match `hostPort` when `hostNetwork` is true"
    return [
        bad_value(f"{field}.{place}.containerPort", port["containerPort"], why)
        for place, port in find(spec, "containers[*].ports[*]")
        if port.get("hostPort") != port.get("containerPort")
    ]


_POD_DEFAULTS = {
    "restartPolicy": "Always",
    "dnsPolicy": "ClusterFirst",
    "terminationGracePeriodSeconds": 30,
    "containers[*].ports[*].protocol": "TCP",
}
_POD_RULES = {
    "": (needs("containers"), _same_as_host_port),
    ".containers": distinct("name", at="name"),
    ".containers[*]": needs("name", "image"),
    ".containers[*].name": dns_label,
    ".containers[*].ports": distinct("name", at="name"),
    ".containers[*].ports[*]": needs("containerPort"),
    ".containers[*].ports[*].containerPort": port_number,
    ".containers[*].ports[*].protocol": protocol,
    ".containers[*].ports[*].name": port_name,
    ".nodeSelector": labels,
    ".terminationGracePeriodSeconds": not_negative,
}


def _pod_rules(place: str) -> dict[str, Any]:
    return {place + path: checks for path, checks in _POD_RULES.items()}


def _default_pod_spec(spec: Json) -> None:
    set_defaults(spec, _POD_DEFAULTS)
    if spec.get("hostNetwork"):
        for _, port in find(spec, "containers[*].ports[*]"):
            if "containerPort" in port:
                port.setdefault("hostPort", port["containerPort"])


class PodStrategy(Strategy):
    first_status = {"phase": "Pending"}
    rules = _pod_rules("spec")

    def default(self, new: Json, old: Json | None) -> None:
        _default_pod_spec(new.setdefault("spec", {}))

    def validate(self, new: Json, old: Json | None) -> list[FieldError]:
        errors = super().validate(new, old)
        if old:
            before = {key: value for key, value in old["spec"].items() if key not in _MUTABLE}
            after = {key: value for key, value in new["spec"].items() if key not in _MUTABLE}
            if before != after:
                why = "pod updates may not change fields other than `spec.containers[*].image`"
                errors.append(not_allowed("spec", why))
        return errors


class _WorkloadStrategy(Strategy):
    """What Deployments and StatefulSets have in common."""

    first_status = {}
    defaults = {
        "spec.replicas": 1,
        "spec.revisionHistoryLimit": 10,
        "spec.template.spec": {},
    }
    rules = {
        "spec.replicas": not_negative,
        "spec.selector.matchLabels": labels,
        "spec.selector.matchExpressions[*].operator": one_of(
            "DoesNotExist", "Exists", "In", "NotIn"
        ),
        "spec.template.metadata.labels": labels,
        **_pod_rules("spec.template.spec"),
    }
    immutable = ("spec.selector",)

    def default(self, new: Json, old: Json | None) -> None:
        super().default(new, old)
        _default_pod_spec(new["spec"]["template"]["spec"])

    def validate(self, new: Json, old: Json | None) -> list[FieldError]:
        errors = super().validate(new, old)
        selector = new["spec"].get("selector", {})
        if not selector.get("matchLabels") and not selector.get("matchExpressions"):
            errors.append(required("spec.selector"))
        elif not errors:
            field = "spec.template.metadata.labels"
            pod_labels = value(new, field, {})
            if not label_selector(selector)(pod_labels):
                why = "`selector` does not match template `labels`"
                errors.append(bad_value(field, pod_labels, why))
        return errors


def _number_or_percentage(field: str, value: int | str) -> list[FieldError]:
    if isinstance(value, int):
        return not_negative(field, value)
    if value.removesuffix("%").isdigit():
        return []
    return [bad_value(field, value, "must be an integer or a percentage (e.g '5%')")]


def _some_progress(field: str, rolling: Json) -> list[FieldError]:
    if any(str(number).rstrip("%") != "0" for number in rolling.values()):
        return []
    why = "may not be 0 when `maxSurge` is 0"
    return [bad_value(f"{field}.maxUnavailable", rolling.get("maxUnavailable"), why)]


class DeploymentStrategy(_WorkloadStrategy):
    defaults = {
        **_WorkloadStrategy.defaults,
        "spec.strategy.type": "RollingUpdate",
        "spec.progressDeadlineSeconds": 600,
    }
    rules = {
        **_WorkloadStrategy.rules,
        "spec.strategy.type": one_of("Recreate", "RollingUpdate"),
        "spec.strategy.rollingUpdate": _some_progress,
        "spec.strategy.rollingUpdate.maxSurge": _number_or_percentage,
        "spec.strategy.rollingUpdate.maxUnavailable": _number_or_percentage,
    }

    def default(self, new: Json, old: Json | None) -> None:
        super().default(new, old)
        if new["spec"]["strategy"]["type"] == "RollingUpdate":
            rolling = "spec.strategy.rollingUpdate"
            set_defaults(new, {f"{rolling}.maxSurge": "25%", f"{rolling}.maxUnavailable": "25%"})


class StatefulSetStrategy(_WorkloadStrategy):
    defaults = {
        **_WorkloadStrategy.defaults,
        "spec.podManagementPolicy": "OrderedReady",
        "spec.updateStrategy.type": "RollingUpdate",
    }
    rules = {
        **_WorkloadStrategy.rules,
        "spec.podManagementPolicy": one_of("OrderedReady", "Parallel"),
        "spec.updateStrategy.type": one_of("OnDelete", "RollingUpdate"),
    }

    def default(self, new: Json, old: Json | None) -> None:
        super().default(new, old)
        if new["spec"]["updateStrategy"]["type"] == "RollingUpdate":
            set_defaults(new, {"spec.updateStrategy.rollingUpdate.partition": 0})

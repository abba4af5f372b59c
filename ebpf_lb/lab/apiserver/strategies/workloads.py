"""Pods, Deployments and StatefulSets: defaults and validation."""

from ebpf_lb.lab.apiserver.errors import FieldError, bad_value, duplicate, required
from ebpf_lb.lab.apiserver.selectors import label_selector
from ebpf_lb.lab.apiserver.store import Json
from ebpf_lb.lab.apiserver.strategies.base import Strategy
from ebpf_lb.lab.apiserver.validation import (
    dns_label,
    labels,
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


def default_pod_spec(spec: Json) -> None:
    spec.setdefault("restartPolicy", "Always")
    spec.setdefault("dnsPolicy", "ClusterFirst")
    spec.setdefault("terminationGracePeriodSeconds", 30)
    for container in spec.get("containers", ()):
        for port in container.get("ports", ()):
            port.setdefault("protocol", "TCP")
            if spec.get("hostNetwork") and "containerPort" in port:
                port.setdefault("hostPort", port["containerPort"])


def pod_spec_errors(spec: Json, field: str) -> list[FieldError]:
    containers: list[Json] = spec.get("containers", [])
    if not containers:
        return [required(f"{field}.containers")]
    errors = []
    names: set[str] = set()
    for index, container in enumerate(containers):
        place = f"{field}.containers[{index}]"
        name = container.get("name", "")
        if not name:
            errors.append(required(f"{place}.name"))
        else:
            errors += dns_label(f"{place}.name", name)
            if name in names:
                errors.append(duplicate(f"{place}.name", name))
            names.add(name)
        if not container.get("image"):
            errors.append(required(f"{place}.image"))
        errors += _container_port_errors(container, place, spec.get("hostNetwork", False))
    errors += labels(f"{field}.nodeSelector", spec.get("nodeSelector", {}))
    if grace_s := spec.get("terminationGracePeriodSeconds"):
        errors += not_negative(f"{field}.terminationGracePeriodSeconds", grace_s)
    return errors


def _container_port_errors(container: Json, place: str, host_network: bool) -> list[FieldError]:
    errors = []
    names: set[str] = set()
    for index, port in enumerate(container.get("ports", ())):
        field = f"{place}.ports[{index}]"
        if "containerPort" not in port:
            errors.append(required(f"{field}.containerPort"))
            continue
        errors += port_number(f"{field}.containerPort", port["containerPort"])
        errors += protocol(f"{field}.protocol", port["protocol"])
        if host_network and port.get("hostPort") != port["containerPort"]:
            errors.append(
                bad_value(
                    f"{field}.containerPort",
                    port["containerPort"],
                    "must match `hostPort` when `hostNetwork` is true",
                )
            )
        if name := port.get("name"):
            errors += port_name(f"{field}.name", name)
            if name in names:
                errors.append(duplicate(f"{field}.name", name))
            names.add(name)
    return errors


def not_negative(field: str, value: int) -> list[FieldError]:
    if value >= 0:
        return []
    return [bad_value(field, value, "must be greater than or equal to 0")]


class PodStrategy(Strategy):
    def prepare_create(self, new: Json) -> None:
        new["status"] = {"phase": "Pending"}

    def default(self, new: Json, old: Json | None) -> None:
        default_pod_spec(new.setdefault("spec", {}))

    def validate(self, new: Json, old: Json | None) -> list[FieldError]:
        errors = pod_spec_errors(new["spec"], "spec")
        if old:
            before = {key: value for key, value in old["spec"].items() if key not in _MUTABLE}
            after = {key: value for key, value in new["spec"].items() if key not in _MUTABLE}
            if before != after:
                errors.append(
                    FieldError(
                        "spec",
                        "Forbidden",
                        "pod updates may not change fields other than `spec.containers[*].image`",
                    )
                )
        return errors


class _WorkloadStrategy(Strategy):
    """What Deployments and StatefulSets have in common."""

    def prepare_create(self, new: Json) -> None:
        new["status"] = {}

    def default(self, new: Json, old: Json | None) -> None:
        spec = new.setdefault("spec", {})
        spec.setdefault("replicas", 1)
        spec.setdefault("revisionHistoryLimit", 10)
        default_pod_spec(spec.setdefault("template", {}).setdefault("spec", {}))

    def validate(self, new: Json, old: Json | None) -> list[FieldError]:
        spec = new["spec"]
        errors = not_negative("spec.replicas", spec["replicas"])
        selector = spec.get("selector", {})
        if not selector.get("matchLabels") and not selector.get("matchExpressions"):
            errors.append(required("spec.selector"))
            return errors
        errors += labels("spec.selector.matchLabels", selector.get("matchLabels", {}))
        for index, term in enumerate(selector.get("matchExpressions", ())):
            field = f"spec.selector.matchExpressions[{index}].operator"
            operators = ("DoesNotExist", "Exists", "In", "NotIn")
            errors += one_of(field, term.get("operator", ""), operators)
        if not errors:
            pod_labels = spec["template"].get("metadata", {}).get("labels", {})
            if not label_selector(selector)(pod_labels):
                errors.append(
                    bad_value(
                        "spec.template.metadata.labels",
                        pod_labels,
                        "`selector` does not match template `labels`",
                    )
                )
            errors += labels("spec.template.metadata.labels", pod_labels)
        errors += pod_spec_errors(spec["template"]["spec"], "spec.template.spec")
        if old and selector != old["spec"].get("selector"):
            errors.append(bad_value("spec.selector", selector, "field is immutable"))
        return errors


class DeploymentStrategy(_WorkloadStrategy):
    def default(self, new: Json, old: Json | None) -> None:
        super().default(new, old)
        strategy = new["spec"].setdefault("strategy", {})
        if strategy.setdefault("type", "RollingUpdate") == "RollingUpdate":
            rolling = strategy.setdefault("rollingUpdate", {})
            rolling.setdefault("maxSurge", "25%")
            rolling.setdefault("maxUnavailable", "25%")
        new["spec"].setdefault("progressDeadlineSeconds", 600)

    def validate(self, new: Json, old: Json | None) -> list[FieldError]:
        strategy = new["spec"]["strategy"]
        errors = super().validate(new, old)
        errors += one_of("spec.strategy.type", strategy["type"], ("Recreate", "RollingUpdate"))
        rolling = strategy.get("rollingUpdate", {})
        for name, value in rolling.items():
            field = f"spec.strategy.rollingUpdate.{name}"
            if isinstance(value, str) and not value.removesuffix("%").isdigit():
                errors.append(
                    bad_value(field, value, "must be an integer or a percentage (e.g '5%')")
                )
            elif isinstance(value, int):
                errors += not_negative(field, value)
        if rolling and all(str(value).rstrip("%") == "0" for value in rolling.values()):
            errors.append(
                bad_value(
                    "spec.strategy.rollingUpdate.maxUnavailable",
                    rolling["maxUnavailable"],
                    "may not be 0 when `maxSurge` is 0",
                )
            )
        return errors


class StatefulSetStrategy(_WorkloadStrategy):
    def default(self, new: Json, old: Json | None) -> None:
        super().default(new, old)
        spec = new["spec"]
        spec.setdefault("podManagementPolicy", "OrderedReady")
        update = spec.setdefault("updateStrategy", {})
        if update.setdefault("type", "RollingUpdate") == "RollingUpdate":
            update.setdefault("rollingUpdate", {}).setdefault("partition", 0)

    def validate(self, new: Json, old: Json | None) -> list[FieldError]:
        spec = new["spec"]
        errors = super().validate(new, old)
        errors += one_of(
            "spec.podManagementPolicy", spec["podManagementPolicy"], ("OrderedReady", "Parallel")
        )
        errors += one_of(
            "spec.updateStrategy.type",
            spec["updateStrategy"]["type"],
            ("OnDelete", "RollingUpdate"),
        )
        return errors

"""Which IP families a Service has, and how that follows from what was asked for.

KEP-563 (dual stack): the first family of a Service never changes; the second one may be added and
removed. `clusterIP` and `clusterIPs[0]` are one thing with two names.
"""

from ebpf_lb.apiserver.errors import FieldError, bad_value, unsupported
from ebpf_lb.apiserver.store import Json
from ebpf_lb.apiserver.validation import ip_family

FAMILIES = ("IPv4", "IPv6")
_POLICIES = ("SingleStack", "PreferDualStack", "RequireDualStack")


def order(primary: str) -> list[str]:
    return [primary, *(family for family in FAMILIES if family != primary)]


def join_addresses(spec: Json, before: Json | None) -> None:
    """Old clients write `clusterIP` alone: `clusterIPs` follows it."""
    single, several = spec.get("clusterIP", ""), list(spec.get("clusterIPs", []))
    if before is None:
        if single and not several:
            spec["clusterIPs"] = [single]
    elif single != before.get("clusterIP", "") and several == before.get("clusterIPs", []):
        if single:
            spec["clusterIPs"] = [single]
        else:
            spec.pop("clusterIPs", None)
    elif several and not single:
        spec["clusterIP"] = several[0]
    elif single and not several:
        spec["clusterIPs"] = [single]


def drop_second_family(spec: Json, before: Json) -> None:
    """From dual stack to SingleStack: the second family goes without being named."""
    if spec.get("ipFamilyPolicy") != "SingleStack":
        return
    for field in ("clusterIPs", "ipFamilies"):
        if len(before.get(field, ())) == 2 and spec.get(field) == before[field]:
            spec[field] = before[field][:1]


def assign(spec: Json, before: Json | None, available: list[str]) -> list[FieldError]:
    """Settles ipFamilyPolicy and ipFamilies. `available`: the cluster's, primary first."""
    addresses: list[str] = spec.get("clusterIPs", [])
    headless = addresses == ["None"]
    families: list[str] = list(spec.get("ipFamilies", []))
    if errors := _check_asked(spec, families, available, headless):
        return errors
    if not headless:
        for index, address in enumerate(addresses):
            family = str(ip_family(address))
            if index >= len(families):
                families.append(family)
            elif families[index] != family:
                field = f"spec.clusterIPs[{index}]"
                why = f"expected an {families[index]} value as indicated by `ipFamilies[{index}]`"
                return [bad_value(field, address, why)]
            if family not in available:
                return [_not_configured(f"spec.clusterIPs[{index}]", address)]
    policy = spec.get("ipFamilyPolicy")
    if headless and not spec.get("selector"):
        # Its endpoints are made by hand and may be of either family.
        policy = policy or "RequireDualStack"
        available = order(available[0]) if policy != "SingleStack" else available
    policy = policy or "SingleStack"
    if policy == "SingleStack" and len(families) == 2:
        why = (
            "must be 'RequireDualStack' or 'PreferDualStack' when multiple IP families are "
            "specified"
        )
        return [bad_value("spec.ipFamilyPolicy", policy, why)]
    if policy == "RequireDualStack" and len(available) < 2:
        why = "this cluster is not configured for dual-stack services"
        return [bad_value("spec.ipFamilyPolicy", policy, why)]
    families = families or available[:1]
    if policy != "SingleStack" and len(families) == 1:
        families += [family for family in available if family not in families]
    if before and before.get("ipFamilies") and families[0] != before["ipFamilies"][0]:
        return [bad_value("spec.ipFamilies[0]", families[0], "primary ipFamily can not be changed")]
    spec["ipFamilyPolicy"], spec["ipFamilies"] = policy, families
    return []


def _check_asked(
    spec: Json, families: list[str], available: list[str], headless: bool
) -> list[FieldError]:
    policy = spec.get("ipFamilyPolicy")
    if policy is not None and policy not in _POLICIES:
        return [unsupported("spec.ipFamilyPolicy", policy, _POLICIES)]
    for index, family in enumerate(families):
        field = f"spec.ipFamilies[{index}]"
        if family not in FAMILIES:
            return [unsupported(field, family, FAMILIES)]
        if family not in available and not (headless and not spec.get("selector")):
            return [_not_configured(field, family)]
    return []


def _not_configured(field: str, value: str) -> FieldError:
    return bad_value(field, value, "not configured on this cluster")

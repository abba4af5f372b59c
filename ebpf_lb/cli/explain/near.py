"""Where nobody is asked: what is near."""

from typing import TYPE_CHECKING, Any

from ebpf_lb.cli.cluster import Cluster
from ebpf_lb.cli.explain.explanation import Explanation, Step
from ebpf_lb.model.values import Network, Protocol, format_address, format_endpoint

if TYPE_CHECKING:
    from ebpf_lb.datapath.reader import View

_PROXY_LABEL = "service.kubernetes.io/service-proxy-name"
_HEADLESS_LABEL = "service.kubernetes.io/headless"


def say_near(
    view: "View",
    found: Explanation,
    place: tuple[bytes, int],
    protocol: Protocol,
    cluster: Cluster,
) -> None:
    from ebpf_lb.datapath.reader.node import service_networks
    from ebpf_lb.datapath.reader.services import frontends

    _say(found, f"No Service has {found.asked} on this node.")
    near = [one for one in frontends(view) if one.port]
    same = sorted(
        f"{one.port}/{one.protocol} ({one.service})" for one in near if one.address == place[0]
    )
    if same:
        _say(found, f"The same address serves {', '.join(same[:5])}.")
    elsewhere = sorted(
        {
            f"{format_endpoint(one.address, one.port)} ({one.service})"
            for one in near
            if one.port == place[1] and one.protocol == protocol.name
        }
    )
    if elsewhere and not same:
        _say(found, f"That port is served at {', '.join(elsewhere[:3])}.")
    for sentence in _by_api(place[0], cluster):
        _say(found, sentence)
    if found.verdict != "pass":
        return
    if any(place[0] in Network(address, length) for address, length in service_networks(view)):
        found.verdict, found.reason = "drop", "NO_SERVICE"
        found.there.append(
            Step(
                "",
                "It is an address of a ServiceCIDR that no Service has: what leaves the node for "
                "it is dropped.",
                ("VE-8",),
            )
        )
    else:
        _say(found, "So it is left to the kernel as it is.")


def _say(found: Explanation, sentence: str) -> None:
    found.there.append(Step("", sentence))


def _by_api(address: bytes, cluster: Cluster) -> list[str]:
    """Whose address it is: another node's, a Service's that is not served, a Pod's."""
    text = format_address(address)
    for node in cluster.nodes() or []:
        name = node["metadata"]["name"]
        addresses = (node.get("status") or {}).get("addresses") or []
        if any(one.get("address") == text for one in addresses) and name != cluster.node:
            return [f"It is an address of {name}: ask there by `ebpf-lb explain`."]
    pods = cluster.pods_at(text) or []
    return [
        f"It is the address of the Pod {one['metadata']['namespace']}/{one['metadata']['name']}, "
        "which is asked without a Service."
        for one in pods[:1]
    ]


def unknown_service(view: "View", target: str, protocol: Protocol, cluster: Cluster) -> str:
    """Why this node does not serve what somebody calls so."""
    name = target.partition("/")[2] or target
    bare = name.partition(":")[0]
    others = sorted(
        {f"{one.service}/{one.protocol}" for one in view.names.values() if bare in one.service}
    )
    hint = f" There is {', '.join(others[:5])}." if others else ""
    sentence = f"This node serves no {target!r} by {protocol.name}.{hint}"
    namespace = target.partition("/")[0] if "/" in target else ""
    asked = [cluster.service(namespace, bare)] if namespace else cluster.services(bare) or []
    for one in asked:
        if one:
            served = bool(others)
            return f"{sentence} {_skipped(one, view.family, served=served)}"
    if not cluster.problem:
        return f"{sentence} The API server has no Service of that name either."
    return (
        f"{sentence} Headless and ExternalName Services and those of another proxy's label are not "
        "served; `ebpf-lb status` says what could not be."
    )


def _skipped(service: Any, family: int, *, served: bool) -> str:
    """Why a Service that exists is not served."""
    metadata, spec = service.get("metadata") or {}, service.get("spec") or {}
    name = f"{metadata.get('namespace')}/{metadata.get('name')}"
    labels = metadata.get("labels") or {}
    if spec.get("type") == "ExternalName":
        return f"{name} is an ExternalName Service: its name leads to {spec.get('externalName')}."
    if spec.get("clusterIP") == "None":
        return f"{name} is headless: its name leads to the Pods themselves."
    if _PROXY_LABEL in labels:
        return f"{name} is for another proxy ({_PROXY_LABEL}={labels[_PROXY_LABEL]})."
    if _HEADLESS_LABEL in labels:
        return f"{name} has the label {_HEADLESS_LABEL}, and is not served."
    wanted = f"IPv{family:d}"
    if wanted not in (spec.get("ipFamilies") or [wanted]):
        return f"{name} has no {wanted} address: try --family."
    ports = ", ".join(
        f"{one.get('name') or ''}:{one.get('port')}/{one.get('protocol', 'TCP')}".lstrip(":")
        for one in spec.get("ports") or []
    )
    if served:
        return f"{name} has {ports or 'no port'}, no other."
    return (
        f"{name} exists, with {ports or 'no port'}, but is not in this node's maps: "
        "`ebpf-lb status` says why."
    )

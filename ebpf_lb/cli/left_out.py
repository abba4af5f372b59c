"""Which endpoints of a Service no new connection may choose here, and by which rule.

The maps hold no endpoint that was never usable, so what the API server says of them is looked at
where it can be asked, by the same rules that the plan has.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

from ebpf_lb.cli.cluster import Cluster
from ebpf_lb.kube.parse_endpoints import parse_slice
from ebpf_lb.kube.parse_node import parse_node
from ebpf_lb.model.values import Family, Protocol, format_address, format_endpoint
from ebpf_lb.plan.usable import Place, near, on_node, places

_DECLARED = "ports"


class LeftOut(NamedTuple):
    """`rule`: of docs/semantics.md."""

    address: str
    why: str
    rule: str


@dataclass(frozen=True, slots=True)
class Endpoints:
    """What the API server knows of a Service port's endpoints, in one family."""

    places: tuple[Place, ...]
    pods: dict[bytes, str]  # namespace/name, by address, as the slices say
    nodes: dict[bytes, str]
    named_otherwise: tuple[str, ...]  # slices that have no port of this name
    node: str
    zone: str

    @classmethod
    def ask(
        cls, cluster: Cluster, service: str, protocol: Protocol, family: Family
    ) -> "Endpoints | None":
        """Of `namespace/name:port`; None where it cannot be asked."""
        full, _, port = service.partition(":")
        namespace, _, name = full.partition("/")
        raw = cluster.slices(namespace, name)
        if raw is None:
            return None
        parsed = [parse_slice(one).value for one in raw]
        slices = [one for one in parsed if one is not None and one.family is family]
        own = cluster.own_node()
        known = parse_node(own).value if own else None
        return cls(
            tuple(places(slices, port, protocol, cluster.node)),
            dict(_pods(raw, namespace)),
            {one.address: one.node for a_slice in slices for one in a_slice.endpoints()},
            tuple(str(one.key) for one in slices if not one.port(port, protocol)),
            cluster.node,
            known.zone if known else "",
        )

    def left_out(self, *, local: bool) -> Iterator[LeftOut]:
        """Those that are not in the set that a policy takes."""
        ready = [one for one in self.places if one.endpoint.ready]
        draining = [one for one in self.places if one.endpoint.serving and one.endpoint.terminating]
        chosen = (
            on_node(ready, self.node) or on_node(draining, self.node)
            if local
            else near(ready, self.node, self.zone) or draining
        )
        for place in self.places:
            if place not in chosen:
                yield LeftOut(
                    format_endpoint(place.address, place.port),
                    *self._why(place, bool(ready), local),
                )
        for name in self.named_otherwise:
            yield LeftOut(name, "this EndpointSlice has no port of the Service port's name", "EP-4")

    def _why(self, place: Place, some_ready: bool, local: bool) -> tuple[str, str]:
        endpoint = place.endpoint
        if not endpoint.ready and not (endpoint.serving and endpoint.terminating):
            if endpoint.terminating:
                return f"{self._pod(place)}terminates and serves no more", "EP-11"
            return f"{self._pod(place)}is not ready", "EP-11"
        if local and endpoint.node != self.node:
            return f"it runs on {endpoint.node or 'no known node'}, and the policy is Local", "EP-9"
        if not endpoint.ready:
            return "it terminates, and others are ready", "EP-9" if local else "EP-8"
        if endpoint.hints.nodes or endpoint.hints.zones:
            whom = ", ".join((*endpoint.hints.nodes, *endpoint.hints.zones))
            return f"topology: it is meant for {whom}, and others are nearer", "EP-12"
        return "others are nearer", "EP-12" if some_ready else "EP-8"

    def _pod(self, place: Place) -> str:
        name = self.pods.get(place.address)
        return f"its Pod {name} " if name else "it "

    def troubles(
        self, cluster: Cluster, address: bytes, port: int, *, in_pod_network: bool
    ) -> Iterator[str]:
        """What the API server shows to be wrong with an endpoint that may be chosen."""
        text = format_address(address)
        name = self.pods.get(address)
        if name is None:
            at = cluster.pods_at(text)
            if at == [] and in_pod_network:
                yield f"No Pod has the address {text} that an EndpointSlice names."
            pods = at or []
        else:
            one = cluster.pod(*name.split("/"))
            pods = [one] if one else []
            addresses = _addresses(one) if one else []
            if one and addresses and text not in addresses:
                yield (
                    f"An EndpointSlice says that {name} has the address {text}, but the Pod has "
                    f"{', '.join(addresses)}."
                )
                return
        declared = {number for pod in pods for number in _declared(pod)}
        if declared and port not in declared:
            listed = ", ".join(map(str, sorted(declared)))
            yield (
                f"Connections go to port {port} of {text}, but its Pod declares {listed}: is the "
                "Service's targetPort wrong?"
            )


def _pods(raw: list[Any], namespace: str) -> Iterator[tuple[bytes, str]]:
    from ebpf_lb.model.values import parse_address

    for one in raw:
        for endpoint in one.get("endpoints") or []:
            target = endpoint.get("targetRef") or {}
            if target.get("kind") == "Pod" and target.get("name") and endpoint.get("addresses"):
                try:
                    address = parse_address(endpoint["addresses"][0])
                except ValueError:
                    continue
                yield address, f"{target.get('namespace') or namespace}/{target['name']}"


def _addresses(pod: Any) -> list[str]:
    status = pod.get("status") or {}
    found = [one.get("ip") for one in status.get("podIPs") or []] or [status.get("podIP")]
    return [one for one in found if isinstance(one, str)]


def _declared(pod: Any) -> Iterator[int]:
    for container in (pod.get("spec") or {}).get("containers") or []:
        for port in container.get(_DECLARED) or []:
            if isinstance(port.get("containerPort"), int):
                yield port["containerPort"]

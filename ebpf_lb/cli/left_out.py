"""Which endpoints of a Service no new connection may choose here, and by which rule.

The maps hold no endpoint that was never usable, so what the API server says of them is looked at
where it can be asked, by the same rules that the plan has.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from ebpf_lb.cli.cluster import Cluster
from ebpf_lb.kube.parse_endpoints import parse_slice
from ebpf_lb.kube.parse_node import parse_node
from ebpf_lb.model.values import (
    Family,
    Network,
    Protocol,
    format_address,
    format_endpoint,
    parse_address,
)
from ebpf_lb.plan.usable import Place, near, on_node, places

_SHOWN = 5


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
        self, cluster: Cluster, ends: Sequence[tuple[bytes, int]], networks: Sequence[Network]
    ) -> Iterator[str]:
        """What the API server shows to be wrong with endpoints that may be chosen. networks: the
        pods', in which an address that no Pod has is a mistake."""
        undeclared: dict[tuple[int, str], list[str]] = {}
        for address, port in ends:
            text = format_address(address)
            pods = self._pods_of(cluster, address)
            if pods is None:
                continue
            if not pods and any(address in one for one in networks):
                yield self._nobodys(cluster, address)
            declared = {number for pod in pods for number in _declared(pod)}
            if declared and port not in declared:
                listed = ", ".join(map(str, sorted(declared)))
                undeclared.setdefault((port, listed), []).append(text)
        for (port, listed), texts in undeclared.items():
            shown = ", ".join(texts[:_SHOWN]) + (" …" if len(texts) > _SHOWN else "")
            yield (
                f"Connections go to port {port} of {shown}, but the Pods there declare {listed}: "
                "is the Service's targetPort wrong?"
            )

    def _pods_of(self, cluster: Cluster, address: bytes) -> list[Any] | None:
        """The Pods that have an address; None where that cannot be told."""
        node = self.nodes.get(address) or cluster.node_of(address)
        pods = cluster.pods_on(node) if node else None
        text = format_address(address)
        return None if pods is None else [one for one in pods if text in _addresses(one)]

    def _nobodys(self, cluster: Cluster, address: bytes) -> str:
        text, name = format_address(address), self.pods.get(address)
        one = cluster.pod(*name.split("/")) if name else None
        if one:
            return (
                f"An EndpointSlice says that Pod {name} has the address {text}, but the Pod has "
                f"{', '.join(_addresses(one)) or 'none'}."
            )
        return f"No Pod has the address {text} that an EndpointSlice names."


def _pods(raw: list[Any], namespace: str) -> Iterator[tuple[bytes, str]]:
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
        for port in container.get("ports") or []:
            if isinstance(port.get("containerPort"), int):
                yield port["containerPort"]

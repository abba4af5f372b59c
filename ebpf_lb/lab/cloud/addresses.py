"""Which addresses a LoadBalancer Service gets. Pure: what is taken is read off the Services.

What the cloud gave stands in an annotation, too; a status that says something else is somebody's
own and is left alone. A change of type, or the Service's end, frees its addresses: the API server
empties the status then.
"""

import ipaddress
from collections.abc import Collection, Iterable
from dataclasses import dataclass

from ebpf_lb.lab.names import Cidr
from ebpf_lb.lab.objects.client import Json

GIVEN = "lab.ebpf-lb.io/given-addresses"


@dataclass(frozen=True, slots=True)
class Pool:
    """Addresses to give, a network of each family; nobody gets one in `reserved`."""

    networks: tuple[Cidr, ...]
    reserved: tuple[Cidr, ...] = ()

    def choose(self, version: int, taken: Collection[str]) -> str | None:
        """The lowest free one, neither the network's first nor its last address."""
        for network in self.networks:
            if network.version == version:
                for number in range(1, network.num_addresses - 1):
                    if (address := str(network[number])) not in taken:
                        return address
        return None


@dataclass(frozen=True, slots=True)
class Decision:
    """The addresses a Service is to have, and why it does not get all of them."""

    addresses: tuple[str, ...]
    problem: str = ""


def external_addresses(service: Json) -> Iterable[str]:
    """What routers must send to the nodes: addresses of load balancers (those with ipMode Proxy
    end at the balancer itself), and externalIPs."""
    for ingress in _ingress(service):
        if "ip" in ingress and ingress.get("ipMode", "VIP") == "VIP":
            yield str(ipaddress.ip_address(ingress["ip"]))
    for address in service["spec"].get("externalIPs") or ():
        yield str(ipaddress.ip_address(address))


def is_external(service: Json) -> bool:
    """Whether it concerns anybody outside the cluster, but for nodePorts."""
    spec = service["spec"]
    return spec.get("type") == "LoadBalancer" or bool(spec.get("externalIPs"))


def decide(service: Json, pool: Pool, taken: Collection[str]) -> Decision | None:
    """What to give; None where all is as it should be, or none of the cloud's business.

    taken: the addresses that other Services have.
    """
    spec, metadata = service["spec"], service["metadata"]
    if (
        spec.get("type") != "LoadBalancer"
        or spec.get("loadBalancerClass")
        or "deletionTimestamp" in metadata
    ):
        return None
    present = tuple(str(ingress.get("ip", "")) for ingress in _ingress(service))
    if present and ",".join(present) != (metadata.get("annotations") or {}).get(GIVEN):
        return None
    addresses, problems = [], []
    for family in spec.get("ipFamilies") or ():
        version = int(family.removeprefix("IPv"))
        kept = next((a for a in present if ipaddress.ip_address(a).version == version), None)
        asked = _asked(spec, version)
        if asked and asked != kept:
            if problem := _refusal(asked, pool, taken):
                problems.append(problem)
                continue
            addresses.append(asked)
        elif address := kept or pool.choose(version, taken):
            addresses.append(address)
        elif any(network.version == version for network in pool.networks):
            problems.append(f"no {family} address is left in the lab's pool")
    if tuple(addresses) == present and not problems:
        return None
    return Decision(tuple(addresses), "; ".join(problems))


def _ingress(service: Json) -> list[Json]:
    return (service.get("status", {}).get("loadBalancer") or {}).get("ingress") or []


def _asked(spec: Json, version: int) -> str | None:
    try:
        asked = ipaddress.ip_address(spec.get("loadBalancerIP") or "")
    except ValueError:
        return None
    return str(asked) if asked.version == version else None


def _refusal(asked: str, pool: Pool, taken: Collection[str]) -> str:
    if asked in taken:
        return f"loadBalancerIP {asked} is another Service's address"
    for network in pool.reserved:
        if ipaddress.ip_address(asked) in network:
            return f"loadBalancerIP {asked} is in {network}, which the lab uses otherwise"
    return ""

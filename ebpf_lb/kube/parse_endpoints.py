"""`discovery.k8s.io/v1` EndpointSlices, and `v1` Endpoints, which become the same values."""

import sys
from collections.abc import Iterator
from functools import lru_cache

from ebpf_lb.kube.reader import Json, Parsed, Reader, mapping_or_empty
from ebpf_lb.model.endpoints import (
    NO_HINTS,
    READY,
    SERVING,
    TERMINATING,
    Endpoint,
    EndpointPort,
    EndpointSlice,
    Hints,
)
from ebpf_lb.model.key import ObjectKey
from ebpf_lb.model.values import Family, family_of, parse_address

SERVICE_NAME = "kubernetes.io/service-name"
OVER_CAPACITY = "endpoints.kubernetes.io/over-capacity"
TRUNCATED = "truncated"

_FAMILIES = {"IPv4": Family.IPV4, "IPv6": Family.IPV6}


@lru_cache(maxsize=4096)
def _shared_ports(ports: tuple[EndpointPort, ...]) -> tuple[EndpointPort, ...]:
    """Most slices have the same few port lists: hold one of each."""
    return ports


@lru_cache(maxsize=64)
def _shared_key(namespace: str, name: str) -> ObjectKey:
    """A Service's slices come one after the other, and name it each."""
    return ObjectKey(namespace, name)


@lru_cache(maxsize=4096)
def _shared_hints(hints: Hints) -> Hints:
    return hints


def parse_slice(raw: Json) -> Parsed[EndpointSlice]:
    """A `discovery.k8s.io/v1` EndpointSlice; None for one of no Service, or of host names."""
    read = Reader("EndpointSlice", raw)
    # rule: KI-7
    service = read.labels.get(SERVICE_NAME)
    if not read.key.name or not service or not isinstance(service, str):
        return read.done(None)
    kind = raw.get("addressType")
    if kind == "FQDN":
        return read.done(None)
    family = _FAMILIES.get(kind) if isinstance(kind, str) else None
    if family is None:
        read.refuse("addressType", kind, "it is not one of IPv4, IPv6 and FQDN")
        return read.done(None)
    return read.done(
        EndpointSlice.of(
            read.key,
            _shared_key(read.key.namespace, service),
            family,
            _slice_ports(read, raw),
            _slice_endpoints(read, raw, family),
        )
    )


def _slice_ports(read: Reader, raw: Json) -> tuple[EndpointPort, ...]:
    """Without a name or number a port says nothing that we could use (kube-proxy, too)."""
    ports = []
    for path, port in read.mappings(raw, "ports", "ports"):
        name = port.get("name")
        # rule: EP-4
        if name is None or port.get("port") in (None, 0):
            continue
        number = read.port(f"{path}.port", port["port"])
        protocol = read.protocol(f"{path}.protocol", port.get("protocol"))
        if not isinstance(name, str):
            read.refuse(f"{path}.name", name, "it is not a name")
        elif number is not None and protocol is not None:
            ports.append(EndpointPort(sys.intern(name), protocol, number))
    return _shared_ports(tuple(ports))


def _slice_endpoints(read: Reader, raw: Json, family: Family) -> Iterator[Endpoint]:
    """Runs a hundred thousand times at a cold start: paths are spelled only for complaints."""
    endpoints = raw.get("endpoints")
    if not isinstance(endpoints, list):
        if endpoints is not None:
            read.refuse("endpoints", endpoints, "it is not a list")
        return
    width = family.address_bytes
    for index, endpoint in enumerate(endpoints):
        if not isinstance(endpoint, dict):
            read.refuse(f"endpoints[{index}]", endpoint, "it is not an object")
            continue
        addresses = endpoint.get("addresses")
        if not addresses:
            continue
        # only the first counts: the others were never given a meaning
        # rule: EP-3
        first = addresses[0] if isinstance(addresses, list) else addresses
        try:
            address = parse_address(first) if isinstance(first, str) else b""
        except ValueError:
            address = b""
        if len(address) != width:
            why = f"it is not an IPv{family:d} address"
            read.refuse(f"endpoints[{index}].addresses[0]", first, why)
            continue
        node = endpoint.get("nodeName")
        yield Endpoint(
            address,
            _conditions(endpoint.get("conditions")),
            sys.intern(node) if isinstance(node, str) else "",
            _hints(endpoint.get("hints")),
        )


def _conditions(conditions: object) -> int:
    """What is not said is ready, serving and not terminating."""
    # rule: EP-2
    if not isinstance(conditions, dict):
        return READY | SERVING
    bits = 0
    if conditions.get("ready") is not False:
        bits |= READY
    if conditions.get("serving") is not False:
        bits |= SERVING
    if conditions.get("terminating") is True:
        bits |= TERMINATING
    return bits


def _hints(hints: object) -> Hints:
    if not isinstance(hints, dict):
        return NO_HINTS
    found = Hints(_names(hints.get("forZones")), _names(hints.get("forNodes")))
    return NO_HINTS if found == NO_HINTS else _shared_hints(found)


def _names(items: object) -> tuple[str, ...]:
    if not isinstance(items, list):
        return ()
    names = (mapping_or_empty(item).get("name") for item in items)
    return tuple(sys.intern(name) for name in names if isinstance(name, str) and name)


# rule: EP-1
def parse_endpoints(raw: Json) -> Parsed[tuple[EndpointSlice, ...]]:
    """A `v1` Endpoints object as the slices that say the same: one for each subset and family.

    Its key is its Service's. It knows ready and not ready, but neither serving nor terminating:
    addresses that are not ready are never used. There are no hints, and one subset may hold both
    families.
    """
    read = Reader("Endpoints", raw)
    if not read.key.name:
        read.refuse("metadata.name", read.key.name, "an object needs a name")
        return read.done(None)
    if mapping_or_empty(read.metadata.get("annotations")).get(OVER_CAPACITY) == TRUNCATED:
        read.problems.append(
            f"Endpoints {read.key}: metadata.annotations[{OVER_CAPACITY}] {TRUNCATED!r} tells "
            "that addresses beyond the first 1000 were left out; use EndpointSlices."
        )
    slices = []
    for number, (path, subset) in enumerate(read.mappings(raw, "subsets", "subsets")):
        ports = _subset_ports(read, subset, path)
        for family in Family:
            endpoints = [e for e in _subset(read, subset, path) if family_of(e.address) is family]
            if endpoints:
                name = f"{read.key.name}/{number}/{family.directory}"
                slices.append(
                    EndpointSlice.of(
                        ObjectKey(read.key.namespace, name), read.key, family, ports, endpoints
                    )
                )
    read.problems = list(dict.fromkeys(read.problems))
    return read.done(tuple(slices))


def _subset_ports(read: Reader, subset: Json, path: str) -> tuple[EndpointPort, ...]:
    """Here, unlike in slices, a port without a name is the Service's only one."""
    named = [
        {**port, "name": port.get("name") or ""}
        for _, port in read.mappings(subset, "ports", f"{path}.ports")
    ]
    return _slice_ports(read, {"ports": named})


def _subset(read: Reader, subset: Json, path: str) -> Iterator[Endpoint]:
    for field, conditions in (("addresses", READY | SERVING), ("notReadyAddresses", 0)):
        for at, raw in read.mappings(subset, field, f"{path}.{field}"):
            address = read.address(f"{at}.ip", raw.get("ip"))
            if address is not None:
                node = raw.get("nodeName")
                yield Endpoint(
                    address, conditions, sys.intern(node) if isinstance(node, str) else ""
                )

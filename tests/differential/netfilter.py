"""The node with netfilter: a plan as the rules that kube-proxy's nftables mode would write.

Chains and their order are kube-proxy's: destinations change at prerouting, by chains for a
Service's inner and outer addresses and one for each endpoint; sources at postrouting, where a mark
says so. Departures (departures.py) change single rules.
"""

from __future__ import annotations

import socket
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from pyroute2.netlink.nfnetlink.nfctsocket import NFCTAttrTuple, NFCTSocket

from ebpf_lb.lab import namespaces
from ebpf_lb.model.values import Family, Protocol, format_address
from ebpf_lb.plan.forwarding import Backend, Forwarding, Frontend, FrontendFlag, FrontendKind
from tests.differential.cluster import HOST_PORT, State
from tests.differential.departures import ALL
from tests.differential.wire import UPLINK, WORLD, Wire, load_rules

End = tuple[str, int]
_NOBODY: tuple[str, Collection[End]] = ("", ())
_MARK = "0x4000"
_OPENS = "tcp flags & (fin | syn | rst | ack) != syn return"


class Netfilter:
    """One proxy of a node. tamper: for tests of the comparison: changes the rules."""

    def __init__(
        self,
        wire: Wire,
        departures: frozenset[str] = ALL,
        tamper: Callable[[str], str] = lambda rules: rules,
    ) -> None:
        self._wire = wire
        self._departures = departures
        self._tamper = tamper
        self._family = Family.IPV4
        self._before = ""
        self._plan: Sequence[Forwarding] = ()

    def begin(self, family: Family) -> None:
        self._family = family
        self._plan = ()
        table = f"table {_nft(family)} kube-proxy"
        self._before = f"{table} {{ }}\ndelete {table}\n"

    def program(self, state: State, plan: Sequence[Forwarding]) -> None:
        # who left and comes back is nobody's endpoint from before
        gone = _affinity(self._plan) - _affinity(plan)
        text = Rules(self._family, plan, self._departures, gone).text()
        with namespaces.entered(self._wire.node.path):
            load_rules(self._before + self._tamper(text))
            if self._plan:
                self._forget_stale(plan)
        self._before, self._plan = "", plan

    def _forget_stale(self, plan: Sequence[Forwarding]) -> None:
        """UDP connections that a Service's frontends have begun, and whose backend is not, or not
        any more, one of that frontend's."""
        now, before = _serving(plan), _serving(self._plan)
        with NFCTSocket(nfgen_family=_af(self._family)) as table:
            for entry in list(table.dump()):
                there, back = _tuple(entry, "CTA_TUPLE_ORIG"), _tuple(entry, "CTA_TUPLE_REPLY")
                asked = there[2], there[3]
                if there[4] != socket.IPPROTO_UDP or asked not in now.keys() | before.keys():
                    continue
                name, ends = now.get(asked, _NOBODY)
                same = bool(ends) and name == before.get(asked, _NOBODY)[0]
                by_node_port = asked[0] == WORLD[self._family].node
                if by_node_port and not same and "CO-15" not in self._departures:
                    continue
                if back[:2] not in ends:
                    source, port, destination, to_port, protocol = there
                    table.entry("del", tuple_orig=NFCTAttrTuple(
                        _af(self._family), saddr=source, daddr=destination, proto=protocol,
                        sport=port, dport=to_port,
                    ))  # fmt: skip


def forget_connections(wire: Wire, family: Family) -> None:
    """The kernel's own connection tracking of a node begins anew."""
    with namespaces.entered(wire.node.path), NFCTSocket(nfgen_family=_af(family)) as table:
        table.flush()


def _nft(family: Family) -> str:
    return "ip6" if family is Family.IPV6 else "ip"


def _af(family: Family) -> int:
    return socket.AF_INET6 if family is Family.IPV6 else socket.AF_INET


def _tuple(entry: Any, name: str) -> tuple[str, int, str, int, int]:
    found = entry.get_attr(name)
    ip, proto = found.get_attr("CTA_TUPLE_IP"), found.get_attr("CTA_TUPLE_PROTO")
    version = "V6" if ip.get_attr("CTA_IP_V6_SRC") else "V4"
    return (
        ip.get_attr(f"CTA_IP_{version}_SRC"),
        proto.get_attr("CTA_PROTO_SRC_PORT") or 0,
        ip.get_attr(f"CTA_IP_{version}_DST"),
        proto.get_attr("CTA_PROTO_DST_PORT") or 0,
        proto.get_attr("CTA_PROTO_NUM"),
    )


def _serving(plan: Sequence[Forwarding]) -> dict[End, tuple[str, Collection[End]]]:
    """Of each frontend, by UDP: whose it is, and the Service's endpoints."""
    found: dict[End, tuple[str, Collection[End]]] = {}
    for one in plan:
        if one.name.protocol is Protocol.UDP:
            ends = {(format_address(b.address), b.port) for b in (*one.cluster, *one.local)}
            for frontend in one.frontends:
                found[format_address(frontend.address), frontend.port] = one.name.name, ends
    return found


@dataclass(frozen=True)
class Rules:
    """Those of one family's plan."""

    family: Family
    plan: Sequence[Forwarding]
    departures: frozenset[str]
    gone: frozenset[str] = frozenset()
    """Sets of an earlier plan that this one has not."""

    def text(self) -> str:
        table = f"{_nft(self.family)} kube-proxy"
        # sets and what is in them stay; the rules are all written anew
        return "\n".join(
            [
                f"table {table} {{ }}",
                f"flush table {table}",
                *(f"delete set {table} {each}" for each in sorted(self.gone)),
                f"table {table} {{",
                *self._table(),
                "}",
                "",
            ]
        )

    @property
    def _ip(self) -> str:
        return _nft(self.family)

    def _table(self) -> Iterator[str]:
        yield from _chain("mark-for-masquerade", f"mark set mark or {_MARK}")
        yield from _chain("reject-chain", *self._reject())
        yield from _chain("drop-chain", "drop")
        for one in self.plan:
            yield from self._of_service(one)
        yield from _chain("services", *self._only_what_opens(), *self._services())
        yield from _chain("unserved", *self._only_what_opens(), *self._unserved())
        yield from _chain("ranges", *self._only_what_opens(), *self._ranges())
        for hook, name in (("prerouting", "dstnat"), ("output", "-100")):
            yield from _chain(f"nat-{hook}", _hook("nat", hook, name), "jump services")
            yield from _chain(
                f"ranges-{hook}", _hook("filter", hook, "-110"), "ct state new jump ranges"
            )
        yield from _chain(
            "nat-postrouting",
            _hook("nat", "postrouting", "srcnat"),
            f"mark and {_MARK} == 0 return",
            f"mark set mark xor {_MARK}",
            "masquerade" if "CO-28" in self.departures else "masquerade fully-random",
        )
        for hook in ("input", "forward", "output"):
            stray = []
            if "CO-7" in self.departures:  # who else translates is not judged
                stray = [f"tcp dport {HOST_PORT} accept", "ct state invalid drop"]
            yield from _chain(
                f"filter-{hook}",
                _hook("filter", hook, "-5"),
                *stray,
                "ct state new jump unserved",
                *self._nobody_is_there(),
            )

    def _nobody_is_there(self) -> list[str]:
        """Whether it opens something or not."""
        if "VE-8" not in self.departures:
            return []
        network = WORLD[self.family].service_network
        return [f"{self._ip} daddr {network} meta l4proto {{ tcp, udp, sctp }} drop"]

    def _only_what_opens(self) -> list[str]:
        return [_OPENS] if "CO-1" in self.departures else []

    def _reject(self) -> list[str]:
        if "VE-10" in self.departures:
            return ["meta l4proto tcp reject with tcp reset", "reject"]
        return ["reject"]

    def _of_service(self, one: Forwarding) -> Iterator[str]:
        """Its chains: by which addresses it is asked, and where that leads."""
        name, of = _name(one), WORLD[self.family]
        for backend in sorted({*one.cluster, *one.local}):
            yield from self._endpoint(one, backend)
        for far, ends in (("cluster", one.cluster), ("local", one.local)):
            yield from _chain(f"{far}-{name}", *self._choice(one, ends, "endpoint"))
        if "VE-13" in self.departures:
            yield from _chain(f"outer-{name}", *self._choice(one, one.cluster, "outer"))
        if "VE-16" in self.departures:
            yield from _chain(f"passing-{name}", *self._choice(one, one.cluster, "outer"))
        inner = [f"{self._ip} saddr != {of.cluster_network} jump mark-for-masquerade"]
        if "VE-16" in self.departures:
            inner.append(f"iifname {UPLINK} goto passing-{name}")
        yield from _chain(f"inner-{name}", *inner, f"goto cluster-{name}")
        yield from _chain(f"inner-local-{name}", inner[0], f"goto local-{name}")
        yield from _chain(f"external-{name}", *self._external(name))
        yield from _chain(f"external-local-{name}", *self._external_local(name))

    def _external(self, name: str) -> list[str]:
        if "VE-13" not in self.departures:
            return ["jump mark-for-masquerade", f"goto cluster-{name}"]
        own = WORLD[self.family].pod_network
        return [
            "fib saddr type local jump mark-for-masquerade",
            f"{self._ip} saddr {own} goto cluster-{name}",
            f"goto outer-{name}",
        ]

    def _external_local(self, name: str) -> list[str]:
        of = WORLD[self.family]
        pods = of.pod_network if "VE-17" in self.departures else of.cluster_network
        return [
            f"{self._ip} saddr {pods} goto cluster-{name}",
            "fib saddr type local jump mark-for-masquerade",
            f"fib saddr type local goto cluster-{name}",
            f"goto local-{name}",
        ]

    def _endpoint(self, one: Forwarding, backend: Backend) -> Iterator[str]:
        end, address = _end(one, backend), format_address(backend.address)
        to = f"[{address}]" if self.family is Family.IPV6 else address
        # of those that ask themselves, kube-proxy knows of the pods of this node alone
        itself = [f"{self._ip} saddr {address} jump mark-for-masquerade"]
        rules = itself if backend.local else []
        if one.affinity_timeout_s:
            kind = "ipv6_addr" if self.family is Family.IPV6 else "ipv4_addr"
            flags = f"flags dynamic,timeout; timeout {one.affinity_timeout_s}s;"
            yield f"  set {_set(one, backend)} {{ type {kind}; {flags} }}"
            rules.append(f"update @affinity-{end} {{ {self._ip} saddr }}")
        protocol = one.name.protocol.name.lower()
        yield from _chain(
            f"endpoint-{end}", *rules, f"meta l4proto {protocol} dnat to {to}:{backend.port}"
        )
        far = [] if backend.local else ["jump mark-for-masquerade"]
        yield from _chain(f"outer-{end}", *far, f"goto endpoint-{end}")

    def _choice(self, one: Forwarding, ends: Sequence[Backend], kind: str) -> list[str]:
        rules = []
        if one.affinity_timeout_s:
            rules = [
                f"{self._ip} saddr @affinity-{end} goto {kind}-{end}"
                for end in (_end(one, backend) for backend in ends)
            ]
        if ends:
            ways = ", ".join(f"{at} : goto {kind}-{_end(one, b)}" for at, b in enumerate(ends))
            rules.append(f"numgen random mod {len(ends)} vmap {{ {ways} }}")
        return rules

    def _services(self) -> Iterator[str]:
        for one in self.plan:
            for frontend in one.frontends:
                if one.has_any:
                    yield f"{self._asks(one, frontend)} goto {_way_in(frontend)}-{_name(one)}"

    def _unserved(self) -> Iterator[str]:
        """What has not been translated by here, and was for a Service."""
        inner = set()
        for one in self.plan:
            for frontend in one.frontends:
                asks = self._asks(one, frontend)
                if frontend.kind is FrontendKind.CLUSTER_IP:
                    inner.add(format_address(frontend.address))
                if not one.has_any:
                    yield f"{asks} goto reject-chain"
                elif frontend.flags & FrontendFlag.LOCAL and not one.local:
                    yield f"{asks} goto drop-chain"
        if inner:
            yield f"{self._ip} daddr {{ {', '.join(sorted(inner))} }} goto reject-chain"
        yield f"{self._ip} daddr {WORLD[self.family].service_network} drop"

    def _ranges(self) -> Iterator[str]:
        for one in self.plan:
            networks = [f"{format_address(n.address)}/{n.prefix_length}" for n in one.source_ranges]
            for frontend in one.frontends:
                if frontend.flags & FrontendFlag.SOURCE_RANGES:
                    allowed = f"{self._ip} saddr != {{ {', '.join(networks)} }}" if networks else ""
                    yield f"{self._asks(one, frontend)} {allowed} drop"

    def _asks(self, one: Forwarding, frontend: Frontend) -> str:
        protocol = one.name.protocol.name.lower()
        return (
            f"{self._ip} daddr {format_address(frontend.address)} {protocol} dport {frontend.port}"
        )


def _chain(name: str, *rules: str) -> Iterator[str]:
    yield f"  chain {name} {{"
    for rule in rules:
        yield f"    {rule}"
    yield "  }"


def _hook(kind: str, hook: str, priority: str) -> str:
    return f"type {kind} hook {hook} priority {priority}; policy accept;"


def _name(one: Forwarding) -> str:
    return f"{one.name.name}-{one.name.port}"


def _end(one: Forwarding, backend: Backend) -> str:
    return f"{_name(one)}-{backend.address.hex()}-{backend.port}"


def _set(one: Forwarding, backend: Backend) -> str:
    return f"affinity-{_end(one, backend)}"


def _affinity(plan: Sequence[Forwarding]) -> frozenset[str]:
    return frozenset(
        _set(one, backend)
        for one in plan
        if one.affinity_timeout_s
        for backend in (*one.cluster, *one.local)
    )


def _way_in(frontend: Frontend) -> str:
    kind = "inner" if frontend.kind is FrontendKind.CLUSTER_IP else "external"
    return f"{kind}-local" if frontend.flags & FrontendFlag.LOCAL else kind

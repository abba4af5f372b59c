"""nftables rules that a packet would meet, and what they would do with it.

The ruleset is read as the kernel lists it, and gone through as the kernel does: chain by chain of a
hook, rule by rule. What a rule asks that we do not know of the packet is "perhaps".
"""

import ipaddress
import json
import subprocess
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from ebpf_lb.cli.beyond.finding import Finding
from ebpf_lb.model.values import Protocol, format_address

_NFT = ("nft", "-j", "-n", "list", "ruleset")
_WITHIN_S = 5
_SHOWN = 5
_DEPTH = 16  # chains that call each other: nftables' own limit
_ENDS = ("drop", "reject")
_NEW = 8  # ct state new, as `nft -n` has it

Json = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Packet:
    """As the hooks see it. Interfaces are "" where it has none there."""

    source: bytes
    source_port: int
    destination: bytes
    destination_port: int
    protocol: str
    incoming: str
    outgoing: str

    @property
    def six(self) -> bool:
        return len(self.destination) == 16


class _End(NamedTuple):
    """`verdict`: drop, reject, accept or return. `sure`: it is reached, and its rule matches."""

    verdict: str
    sure: bool
    place: str


def read() -> list[Json]:
    """The ruleset; [] where there is no nft or no right to."""
    try:
        done = subprocess.run(_NFT, capture_output=True, timeout=_WITHIN_S, check=False)
        listed = json.loads(done.stdout or b"{}").get("nftables", [])
    except (OSError, ValueError, subprocess.TimeoutExpired):
        return []
    return listed if isinstance(listed, list) else []


def about_rules(listed: list[Json], hooks: tuple[str, ...], packet: Packet) -> Iterator[Finding]:
    """What the chains of these hooks do with a new connection's first packet."""
    found: dict[str, Finding] = {}
    for end in _Ruleset(listed).ends(hooks, packet):
        word = {"drop": "drops", "reject": "rejects"}[end.verdict]
        says = word if end.sure else f"may {end.verdict}"
        to = format_address(packet.destination)
        found.setdefault(
            end.place, Finding(f"nftables {says} what goes to {to}: {end.place}.", end.sure)
        )
    ordered = sorted(found.values(), key=lambda one: not one.trouble)
    yield from ordered[:_SHOWN]
    if len(ordered) > _SHOWN:
        yield Finding(f"… and {len(ordered) - _SHOWN} more such rules.")


class _Ruleset:
    def __init__(self, listed: list[Json]) -> None:
        self._chains: dict[tuple[str, str, str], Json] = {}
        self._rules: dict[tuple[str, str, str], list[Json]] = {}
        self._sets: dict[tuple[str, str, str], Any] = {}
        for one in listed:
            if chain := one.get("chain"):
                self._chains[chain["family"], chain["table"], chain["name"]] = chain
            elif rule := one.get("rule"):
                key = (rule["family"], rule["table"], rule["chain"])
                self._rules.setdefault(key, []).append(rule)
            elif named := one.get("set") or one.get("map"):
                key = (named["family"], named["table"], named["name"])
                self._sets[key] = named.get("elem", [])

    def ends(self, hooks: tuple[str, ...], packet: Packet) -> Iterator[_End]:
        """Where it is dropped or rejected, or may be."""
        ours = ("inet", "ip6" if packet.six else "ip")
        for key, chain in self._chains.items():
            if chain.get("hook") not in hooks or key[0] not in ours or chain["type"] == "nat":
                continue
            ends = list(self._walk(key, packet, True, 0))
            yield from (end for end in ends if end.verdict in _ENDS)
            over = any(end.sure and end.verdict in (*_ENDS, "accept") for end in ends)
            if not over and chain.get("policy") == "drop":
                perhaps = any(end.verdict == "accept" for end in ends)
                place = f"the policy of chain {' '.join(key)} ({chain['hook']})"
                yield _End("drop", not perhaps, place)

    def _walk(
        self, key: tuple[str, str, str], packet: Packet, sure: bool, depth: int
    ) -> Iterator[_End]:
        for rule in self._rules.get(key, []):
            matches: bool | None = True
            for part in rule.get("expr", []):
                matches = _both(matches, self._matches(key, part, packet))
                if matches is False:
                    break
                certain = sure and matches is True
                if (verdict := _verdict_of(part)) is not None:
                    chain = " ".join(key)
                    place = f"rule {rule['handle']} of chain {chain} (`nft -a list chain {chain}`)"
                    yield _End(verdict, certain, place)
                    if certain:
                        return
                elif target := part.get("jump") or part.get("goto"):
                    called = (key[0], key[1], target["target"])
                    if depth < _DEPTH:
                        ends = list(self._walk(called, packet, certain, depth + 1))
                        yield from (end for end in ends if end.verdict != "return")
                        over = any(end.sure and end.verdict != "return" for end in ends)
                        if over or (certain and "goto" in part):
                            return

    def _matches(self, key: tuple[str, str, str], part: Json, packet: Packet) -> bool | None:
        """None: it cannot be told. What is not a condition matches."""
        if "xt" in part or "fib" in part or "vmap" in part or "limit" in part or "lookup" in part:
            return None
        match = part.get("match")
        if not match:
            return True
        value = _value(match.get("left"), packet)
        if value is None:
            return None
        if value is _OTHER:
            return False
        holds = self._holds(key, match.get("right"), value)
        if holds is None:
            return None
        return not holds if match.get("op") == "!=" else holds

    def _holds(self, key: tuple[str, str, str], wanted: Any, value: Any) -> bool | None:
        if isinstance(wanted, str) and wanted.startswith("@"):
            wanted = self._sets.get((key[0], key[1], wanted[1:]))
        if isinstance(wanted, dict) and "set" in wanted:
            wanted = wanted["set"]
        if isinstance(wanted, list):
            all_of_them = [self._holds(key, one, value) for one in wanted]
            return True if True in all_of_them else None if None in all_of_them else False
        if isinstance(wanted, dict) and "elem" in wanted:
            return self._holds(key, wanted["elem"].get("val"), value)
        if isinstance(value, bytes):
            return _is_address(wanted, value)
        if isinstance(wanted, dict) and "range" in wanted:
            low, high = wanted["range"]
            numbers = isinstance(value, int) and isinstance(low, int) and isinstance(high, int)
            return low <= value <= high if numbers else None
        if isinstance(value, str):
            if not isinstance(wanted, str):
                return None
            return value.startswith(wanted[:-1]) if wanted.endswith("*") else value == wanted
        if isinstance(value, int) and isinstance(wanted, int):
            return value == wanted
        return None


_OTHER = object()  # of another family or protocol: no such rule matches


def _value(left: Any, packet: Packet) -> Any:
    """What a condition asks of the packet; None where it is not known."""
    if not isinstance(left, dict):
        return None
    if payload := left.get("payload"):
        protocol, name = payload.get("protocol"), payload.get("field")
        if protocol in ("ip", "ip6"):
            if (protocol == "ip6") != packet.six:
                return _OTHER
            number = Protocol[packet.protocol]
            known = {"saddr": packet.source, "daddr": packet.destination}
            return known.get(name, number if name in ("protocol", "nexthdr") else None)
        if protocol in ("tcp", "udp", "sctp", "th"):
            if protocol not in ("th", packet.protocol.lower()):
                return _OTHER
            ports = {"sport": packet.source_port, "dport": packet.destination_port}
            return ports.get(name)
        return _OTHER if protocol in ("icmp", "icmpv6", "arp") else None
    if meta := left.get("meta"):
        return {
            "iifname": packet.incoming,
            "oifname": packet.outgoing,
            "l4proto": Protocol[packet.protocol],
            "nfproto": 10 if packet.six else 2,
        }.get(meta.get("key"))
    if (left.get("ct") or {}).get("key") == "state":
        return _NEW
    return None


def _is_address(wanted: Any, value: bytes) -> bool | None:
    address = ipaddress.ip_address(value)
    try:
        if isinstance(wanted, str):
            return address in ipaddress.ip_network(wanted, strict=False)
        if isinstance(wanted, dict) and "prefix" in wanted:
            prefix = wanted["prefix"]
            return address in ipaddress.ip_network(
                f"{prefix['addr']}/{prefix['len']}", strict=False
            )
        if isinstance(wanted, dict) and "range" in wanted:
            low, high = (int(ipaddress.ip_address(one)) for one in wanted["range"])
            return low <= int(address) <= high
    except (ValueError, TypeError, KeyError):
        return None
    return None


def _both(one: bool | None, other: bool | None) -> bool | None:
    if one is False or other is False:
        return False
    return None if one is None or other is None else True


def _verdict_of(part: Json) -> str | None:
    return next((name for name in (*_ENDS, "accept", "return") if name in part), None)

"""What a ruleset does with a packet, as `nft -j -n` lists it."""

from typing import Any

import pytest

from ebpf_lb.cli.beyond.netfilter import Packet, about_rules
from ebpf_lb.model.values import parse_address

PACKET = Packet(
    parse_address("198.51.100.1"), 40000, parse_address("10.1.0.7"), 8080, "TCP", "eth0", "cni0"
)
DROP, ACCEPT, REJECT = {"drop": None}, {"accept": None}, {"reject": {"type": "icmp"}}


def chain(name: str = "f", hook: str | None = "forward", policy: str = "accept") -> dict[str, Any]:
    base = {"type": "filter", "hook": hook, "prio": 0, "policy": policy} if hook else {}
    return {"chain": {"family": "inet", "table": "t", "name": name} | base}


def rule(*expr: dict[str, Any], name: str = "f", handle: int = 5) -> dict[str, Any]:
    return {
        "rule": {"family": "inet", "table": "t", "chain": name, "handle": handle, "expr": [*expr]}
    }


def match(left: Any, right: Any, op: str = "==") -> dict[str, Any]:
    return {"match": {"op": op, "left": left, "right": right}}


def ip(field: str, right: Any, op: str = "==") -> dict[str, Any]:
    return match({"payload": {"protocol": "ip", "field": field}}, right, op)


def port(right: Any, protocol: str = "tcp") -> dict[str, Any]:
    return match({"payload": {"protocol": protocol, "field": "dport"}}, right)


def meta(key: str, right: Any) -> dict[str, Any]:
    return match({"meta": {"key": key}}, right)


STATE = {"ct": {"key": "state"}}


def found(*listed: dict[str, Any], hooks: tuple[str, ...] = ("forward",)) -> list[bool]:
    """Of each thing that was found, whether it is sure."""
    return [one.trouble for one in about_rules(list(listed), hooks, PACKET)]


@pytest.mark.parametrize(
    ("condition", "outcome"),
    [
        (ip("daddr", "10.1.0.7"), [True]),
        (ip("daddr", "10.1.0.8"), []),
        (ip("daddr", "10.1.0.8", "!="), [True]),
        (ip("daddr", {"prefix": {"addr": "10.1.0.0", "len": 16}}), [True]),
        (ip("daddr", {"set": ["10.9.0.1", {"range": ["10.1.0.0", "10.1.0.9"]}]}), [True]),
        (ip("saddr", "@bad"), [True]),
        (match({"payload": {"protocol": "ip6", "field": "daddr"}}, "fd00::1"), []),
        (port(8080), [True]),
        (port({"set": [80, {"range": [8000, 9000]}]}), [True]),
        (port(8080, "udp"), []),
        (meta("iifname", "eth*"), [True]),
        (meta("oifname", "eth1"), []),
        (meta("l4proto", 6), [True]),
        (meta("mark", 7), [False]),
        (match(STATE, 1, "in"), []),  # invalid
        (match(STATE, [2, 8], "in"), [True]),  # established, new
        ({"xt": {"type": "match", "name": "comment"}}, [False]),
        ({"counter": {"packets": 1}}, [True]),
    ],
)
def test_conditions(condition: dict[str, Any], outcome: list[bool]) -> None:
    named = {"set": {"family": "inet", "table": "t", "name": "bad", "elem": ["198.51.100.1"]}}
    assert found(named, chain(), rule(condition, DROP)) == outcome


def test_what_comes_first_counts() -> None:
    accepts = rule(port(8080), ACCEPT, handle=4)
    assert found(chain(), accepts, rule(DROP)) == []
    assert found(chain(policy="drop"), accepts) == []
    assert found(chain(policy="drop")) == [True]
    assert found(chain(policy="drop"), rule(meta("mark", 7), ACCEPT)) == [False]
    assert found(chain(hook="input"), rule(DROP)) == []


def test_chains_that_are_called() -> None:
    called = chain("ours", None), rule(port(8080), REJECT, name="ours", handle=9)
    assert found(chain(), rule({"jump": {"target": "ours"}}), *called) == [True]
    assert found(chain(), rule(port(1), {"jump": {"target": "ours"}}), *called) == []
    back = chain("ours", None), rule({"return": None}, name="ours")
    assert found(chain(), rule({"jump": {"target": "ours"}}), rule(DROP), *back) == [True]


def test_the_place_is_told() -> None:
    (one,) = about_rules([chain(), rule(DROP)], ("forward",), PACKET)
    assert "handle" not in one.text
    assert "rule 5 of chain inet t f (`nft -a list chain inet t f`)" in one.text

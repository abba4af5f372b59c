"""Pictures of what explain has found."""

import re

from ebpf_lb.cli.explain.drawing import draw
from ebpf_lb.cli.explain.explanation import Candidate, Explanation, Step


def explanation(client: str, kind: str, source: str) -> Explanation:
    found = Explanation(
        client, kind, "10.96.0.10:53/UDP", "forward", "SOCKET", service="kube-system/kube-dns:dns",
        frontend="10.96.0.10:53", backend="10.244.1.2:53", source=source,
    )  # fmt: skip
    found.there = [Step("the node's own socket", ""), Step("cni0, egress", "")]
    found.candidates = [Candidate("10.244.1.2:53", "here", 1.0, node="node1", pod="a/dns-1")]
    return found


def translations(drawing: str) -> list[str]:
    return re.findall(r">([SD]NAT[^<]*)<", drawing)


def test_a_process_has_the_address_that_the_stack_gives_it() -> None:
    """By the way to its backend; that is not SNAT, though the address is another one."""
    found = explanation("172.30.0.11:40000", "a process of this node", "10.244.1.1:40000")
    drawn = draw(found, "node1")
    assert translations(drawn) == ["DNAT", "DNAT undone"]
    assert "rewrites at the socket" in drawn and "10.244.1.1:40000" in drawn


def test_who_is_masqueraded_is_drawn_so() -> None:
    found = explanation("172.31.0.2:40000", "somebody outside this node", "172.30.0.11:40000")
    drawn = translations(draw(found, "node1"))
    assert drawn == ["DNAT", "SNAT", "DNAT undone", "SNAT undone"]

"""kube-proxy's rules, as it writes them itself."""

from ebpf_lb.lessons.tutorial.iptables import rules


def test_chains_are_named_as_by_kube_proxy() -> None:
    """The names in kube-proxy's own tests for these parts."""
    text = "\n".join(
        rules("ns1/svc1:p80", "172.30.0.41", 80, "TCP", ["10.180.0.1:80"], "10.0.0.0/8")
    )
    assert "-A KUBE-SERVICES -d 172.30.0.41/32" in text
    assert "-j KUBE-SVC-XPGD46QRK7WJZT7O" in text
    assert "-j KUBE-SEP-SXIVWICOYRO3J4NJ" in text
    assert "--probability" not in text, "a single endpoint needs no chance"


def test_every_endpoint_gets_an_equal_share() -> None:
    endpoints = [f"10.244.1.{n}:9376" for n in (2, 3, 4)]
    found = rules("default/web", "10.96.0.7", 80, "TCP", endpoints, "10.244.0.0/16")
    chances = [line.split("--probability ")[1].split()[0] for line in found if "random " in line]
    assert chances == ["0.3333333333", "0.5000000000"]
    assert [line for line in found if "DNAT" in line][-1].endswith(
        "--to-destination 10.244.1.4:9376"
    )
    masquerade = [line for line in found if line.endswith("-j KUBE-MARK-MASQ")]
    assert len(masquerade) == 4, "clients that are not pods, and each pod that asks itself"

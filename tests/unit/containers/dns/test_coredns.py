"""CoreDNS in place of the lab's own server."""

from pathlib import Path

import pytest

from ebpf_lb.containers.dns import coredns


def test_what_is_not_the_clusters_goes_to_the_name_servers_outside() -> None:
    text = coredns.corefile(53, "a.b", Path("/k"), 30, ["192.0.2.1", "192.0.2.2"])
    assert "forward . 192.0.2.1 192.0.2.2\n" in text
    assert "kubernetes a.b in-addr.arpa ip6.arpa {\n        kubeconfig /k\n" in text
    assert "forward" not in coredns.corefile(53, "a.b", Path("/k"), 30)


def test_a_program_that_ends_at_once_is_reported() -> None:
    """And nobody is told that it is ready."""
    told: list[bool] = []
    with pytest.raises(coredns.CoreDnsError, match="does not begin to answer"):
        coredns.serve("false", "", 5, "a.b", lambda: told.append(True))
    assert told == []

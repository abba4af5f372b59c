"""Names and addresses: what two labs must not share, and what a pod gets."""

from pathlib import Path

import pytest

from ebpf_lb.errors import UserError
from ebpf_lb.lab import names
from ebpf_lb.lab.kubelet.ipam import AddressPool, NoAddressError
from ebpf_lb.lab.names import LabNames, NodeNames, NoSuchHostError, api_url
from ebpf_lb.lab.options import Options


def test_node_two_of_a_dual_stack_lab() -> None:
    node = LabNames("lab").node(Options(), "node2")
    assert node.addresses == ("172.30.0.12", "fd30::c")
    assert node.pod_cidrs == ("10.244.2.0/24", "fd00:10:244:2::/64")
    assert node.zone == "zone-b"
    assert str(node.bpffs) == "/sys/fs/bpf/ebpf-lb-lab/node2"


def test_single_family_labs() -> None:
    assert LabNames("lab").node(Options(family="ipv6"), "node1").addresses == ("fd30::b",)
    assert api_url(Options(family="ipv6")) == "https://[fd30::a]:6443"
    assert api_url(Options(family="dual")) == "https://172.30.0.10:6443"


def test_a_lab_does_not_take_another_ones_namespaces_for_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(names, "NETNS", tmp_path)
    mine = [
        "ebpflb-a-router",
        "ebpflb-a-node12",
        "ebpflb-a-client1",
        "ebpflb-a-pod.default.x-router",
    ]
    others = ["ebpflb-a-b-router", "ebpflb-a-node1-node1", "ebpflb-b-router", "ebpflb-a-nodes", "a"]
    for name in mine + others:
        (tmp_path / name).touch()
    assert [path.name for path in LabNames("a").existing_netns()] == sorted(mine)
    assert [path.name for path in LabNames("a-b").existing_netns()] == ["ebpflb-a-b-router"]
    assert [path.name for path in LabNames("a-node1").existing_netns()] == ["ebpflb-a-node1-node1"]


def test_a_long_pod_name_still_makes_a_file_name() -> None:
    lab = LabNames("l" * 32)
    one, other = (lab.pod_netns("n" * 63, "p" * 250 + end) for end in "ab")
    assert one != other
    assert len(one.name) <= 255


@pytest.mark.parametrize("name", ["", "-a", "a-", "A", "a.b", "a/b", "a" * 40])
def test_bad_names_of_labs(name: str) -> None:
    with pytest.raises(UserError, match="cannot name a lab"):
        LabNames(name)


@pytest.mark.parametrize(
    ("option", "value"), [("nodes", 0), ("nodes", 101), ("family", "ipv5"), ("proxy", "x")]
)
def test_bad_options_are_named(option: str, value: object) -> None:
    with pytest.raises(UserError, match=f"^{option} must be"):
        Options(**{option: value})  # type: ignore[arg-type]


def test_an_unknown_node_is_an_error_that_lists_the_nodes() -> None:
    with pytest.raises(NoSuchHostError, match="node1 to node3"):
        LabNames("lab").node(Options(), "node4")


@pytest.fixture
def pool() -> AddressPool:
    return AddressPool(NodeNames(LabNames("lab"), 1, Options().families))


def test_pods_get_the_same_number_in_both_families(pool: AddressPool) -> None:
    assert [str(a) for a in pool.take()] == ["10.244.1.2/24", "fd00:10:244:1::2/64"]
    assert [str(a.ip) for a in pool.take()] == ["10.244.1.3", "fd00:10:244:1::3"]


def test_an_address_comes_back_only_after_all_others(pool: AddressPool) -> None:
    first = tuple(str(a.ip) for a in pool.take())
    pool.give_back(first)
    given = [str(pool.take()[0].ip) for _ in range(252)]
    assert len(set(given)) == 252
    assert first[0] not in given
    assert str(pool.take()[0].ip) == first[0]
    with pytest.raises(NoAddressError, match="no address is free"):
        pool.take()

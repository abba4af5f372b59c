"""Tables about the node itself."""

import errno

import pytest

from ebpf_lb.datapath.writer import FullError
from ebpf_lb.model.values import Family, Network
from tests.unit.datapath.writer.fake_maps import FakeMaps
from tests.unit.datapath.writer.writing import address, writer_of

POD_NETWORKS_KNOWN = 2  # bpf/ground/layout.h


def flags(fake: FakeMaps) -> int:
    value = fake.tables["config"].lookup(bytes(4))
    assert value is not None
    return int.from_bytes(value[8:12], "little")


@pytest.mark.parametrize(("number", "kind"), [(errno.E2BIG, "hash"), (errno.ENOSPC, "trie")])
def test_a_full_table_is_named_with_the_key_that_makes_it_larger(
    number: int, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake = FakeMaps(Family.IPV4)
    writer = writer_of(fake)

    def refuse(key: bytes, value: bytes) -> None:
        raise OSError(number, f"{kind}: update: full")

    for table, key in (("interfaces", "interfaces"), ("pod_networks", "networks")):
        monkeypatch.setattr(fake.tables[table], "update", refuse)
        with pytest.raises(FullError, match=f"is full .*: raise dataPath.{key} in the config"):
            if table == "interfaces":
                writer.set_interface(3)
            else:
                writer.set_pod_networks([Network(b"\x0a\1\0\0", 16)])


def test_node_tables_write_only_differences() -> None:
    fake = FakeMaps(Family.IPV4)
    for _ in range(2):
        writer = writer_of(fake)
        writer.set_config(node_netns_cookie=7, masquerade_all=True, reject_per_second=1000)
        writer.set_interface(3, bridge=2, source_id=1)
        writer.set_snat_source(1, address(Family.IPV4, 9))
        writer.set_pod_networks([Network(b"\x0a\1\0\0", 16), Network(b"\x0a\2\0\0", 16)])
        writer.set_crc32c_shifts()
    assert not writer.stats
    writer.set_pod_networks([Network(b"\x0a\1\0\0", 16)])
    writer.delete_interface(3)
    writer.delete_interface(3)
    assert dict(writer.stats) == {"pod_networks": 1, "interfaces": 1}
    assert writer.interfaces() == set()
    assert flags(fake) == 1 | POD_NETWORKS_KNOWN
    writer.set_pod_networks([])
    assert flags(fake) == 1
    assert dict(writer.stats) == {"pod_networks": 2, "interfaces": 1, "config": 1}
    for _ in range(2):
        writer.clear_snat_source(1)
        assert fake.tables["snat_sources"].lookup(b"\1\0\0\0") == bytes(4)
        assert writer.stats["snat_sources"] == 1

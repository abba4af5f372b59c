"""What a person with bpftool does to the maps of IPv4, behind the agent's back."""

from ebpf_lb.datapath.libbpf import Map
from ebpf_lb.datapath.pins import Build
from ebpf_lb.model.values import Family


def change(build: Build, name: str, key: bytes, value: bytes | None) -> None:
    with Map.open(build.maps(Family.IPV4) / name) as table:
        if value is None:
            assert table.delete(key)
        else:
            table.update(key, value)


def index(number: int) -> bytes:
    return number.to_bytes(4, "little")

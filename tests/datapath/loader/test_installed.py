"""The product's own sources."""

import ipaddress
from pathlib import Path

import pytest

from ebpf_lb.datapath import layout
from ebpf_lb.datapath.loader import cache, compilation, source
from ebpf_lb.datapath.loader.programs import STACK
from ebpf_lb.datapath.pins import Pins
from ebpf_lb.model.values import Family
from tests.capabilities import DATAPATH, needs
from tests.datapath.conftest import SETTINGS as PACKETS
from tests.datapath.kernel import Kernel
from tests.support.packets import Packet

pytestmark = needs(*DATAPATH)


def test_the_installed_sources_give_the_same_code_for_any_seed(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Filling in another seed gives what compiling with that seed gives."""
    pins, folder = Pins(root), layout.sources()
    pins.builds.mkdir(parents=True)

    def compiled() -> cache.Images:
        return compilation.compile_images(pins, STACK, PACKETS, folder)

    # the same settings as the packet tests', so that they are compiled already
    usual, _ = cache.images(source.cache_key(STACK, PACKETS, folder), compiled)
    monkeypatch.setattr(compilation, "PLACEHOLDER_SEED", 0x1D872B41_C6A4A793)
    assert compiled() == usual
    assert all(image["pod_ingress"].seeds for image in usual.values())
    assert list(pins.builds.iterdir()) == []


def test_a_flow_that_a_program_wrote_is_read_as_bytes_and_as_fields(kernel: Kernel) -> None:
    addresses = {
        Family.IPV4: ("10.244.1.2", "10.96.0.20", "10.244.2.7"),
        Family.IPV6: ("fd00:10:244:1::2", "fd00:10:96::20", "fd00:10:244:2::7"),
    }[kernel.family]
    client, vip, backend = addresses
    service = kernel.service(vip, 80, [(backend, 9376)])
    assert kernel.run("pod_ingress", Packet(client, vip, 40000, 80)).passed

    with kernel.open("flows") as table:
        (value,) = (value for _, value in table.items() if value.strip(b"\0"))
    size = 32 if kernel.family is Family.IPV4 else 64
    (entry,) = (value[at : at + size] for at in range(0, 4 * size, size) if any(value[at:][:size]))
    assert entry[8:] == (
        b"".join(ipaddress.ip_address(address).packed for address in addresses)
        + bytes.fromhex("9c40 0050 24a0 0000")
    ).ljust(size - 8, b"\0")
    state, protocol = entry[3] & 7, entry[3] >> 3 & 3
    assert (state, protocol) == (3, 1)  # NEW, TCP
    assert int.from_bytes(entry[4:6], "little") == kernel.writer.service_id(service)

    read = kernel.layout.struct("flow").unpack(entry)
    assert read.word == int.from_bytes(entry[:8], "little")
    assert (read.client, read.vip, read.backend) == tuple(
        ipaddress.ip_address(address).packed for address in addresses
    )
    assert (read.client_port, read.vip_port, read.backend_port) == (40000, 80, 9376)
    assert read.snat_port == 0

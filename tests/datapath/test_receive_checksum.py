"""The checksum that a device has computed over a received packet (CHECKSUM_COMPLETE) must stay that
of the packet: where it does not, the kernel computes all of it again, and complains."""

import errno
from collections.abc import Iterator
from pathlib import Path

import pytest

from ebpf_lb.datapath.loader import source
from ebpf_lb.model.values import Family, Protocol
from ebpf_lb.plan.forwarding import FrontendKind
from tests.datapath.conftest import SETTINGS
from tests.datapath.kernel import Kernel, loaded
from tests.datapath.pod_world import WORLDS, first
from tests.support.packets import TCP, UDP, Packet, parse

CHECKSUM_COMPLETE = 1 << 2  # BPF_F_TEST_SKB_CHECKSUM_COMPLETE: sets it, and compares afterwards


@pytest.fixture(scope="module", params=["the kernel is asked", "the helper knows"])
def _kernels(request: pytest.FixtureRequest, loaded_root: Path) -> Iterator[dict[Family, Kernel]]:
    """As on this kernel; and as on one that cannot be asked what is in the field (Linux 6.1)."""
    if request.param == "the kernel is asked":
        yield {family: Kernel(loaded_root, family) for family in Family}
        return
    nothing = dict.fromkeys(source.kernel_facts()[0], 0)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(source, "kernel_facts", lambda: (nothing, {}))
        with loaded("helper", SETTINGS) as root:
            yield {family: Kernel(root, family) for family in Family}


def judged(kernel: Kernel) -> int:
    """The flag, if this kernel judges. Older ones refuse it: only the packet is looked at then."""
    try:
        kernel.program("empty").test_run(bytes(64), flags=CHECKSUM_COMPLETE)
    except OSError as error:
        if error.errno != errno.EINVAL:
            raise
        return 0
    return CHECKSUM_COMPLETE


def run(kernel: Kernel, name: str, packet: Packet) -> Packet:
    """Raises OSError (EBADMSG) if the device's checksum is no longer that of the packet."""
    done = kernel.program(name).test_run(packet.frame(), flags=judged(kernel))
    result = parse(done.data_out)
    assert result.valid
    return result


@pytest.mark.parametrize("target", [80, 9376], ids=["same port", "another port"])
@pytest.mark.parametrize("protocol", [TCP, UDP])
def test_without_a_device_that_sums_up(kernel: Kernel, protocol: int, target: int) -> None:
    world = WORLDS[kernel.family]
    kernel.service(world.vip, 80, [(world.backend, target)], protocol=Protocol(protocol))
    there = parse(kernel.program("pod_ingress").test_run(first(world, protocol).frame()).data_out)
    assert there.valid
    assert (there.destination, there.destination_port) == (world.backend, target)
    back = parse(kernel.program("pod_egress").test_run(there.reply().frame()).data_out)
    assert back.valid
    assert (back.source, back.source_port) == (world.vip, 80)


@pytest.mark.parametrize("target", [80, 9376], ids=["same port", "another port"])
@pytest.mark.parametrize("protocol", [TCP, UDP])  # for SCTP nobody looks at it
def test_there_and_back(kernel: Kernel, protocol: int, target: int) -> None:
    world = WORLDS[kernel.family]
    kernel.service(world.vip, 80, [(world.backend, target)], protocol=Protocol(protocol))
    there = run(kernel, "pod_ingress", first(world, protocol))
    assert (there.destination, there.destination_port) == (world.backend, target)
    back = run(kernel, "pod_egress", there.reply())
    assert (back.source, back.source_port) == (world.vip, 80)


@pytest.mark.parametrize("protocol", [TCP, UDP])
def test_from_outside(kernel: Kernel, protocol: int) -> None:
    world = WORLDS[kernel.family]
    kernel.service(
        world.vip,
        80,
        [],
        local=[(world.backend, 9376)],
        protocol=Protocol(protocol),
        kind=FrontendKind.NODE_PORT,
    )
    there = run(kernel, "uplink_ingress", first(world, protocol))
    assert there.destination == world.backend
    assert run(kernel, "uplink_egress", there.reply()).source == world.vip

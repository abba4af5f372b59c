"""What else is in a pod's packets: fragments, extension headers, checksums."""

import pytest

from ebpf_lb.model.values import Family, Protocol
from tests.datapath.judge import FOLLOWED
from tests.datapath.kernel import Kernel
from tests.datapath.pod_world import INIT_CHUNK, WORLDS, World, first
from tests.datapath.words import ESTABLISHED, state_of
from tests.support.packets import (
    SCTP,
    UDP,
    Packet,
)

INIT_ACK = b"\x02" + INIT_CHUNK[1:]
JOINED = 0xFFFF  # GSO_BY_FRAGS: as large as its pieces are


@pytest.fixture
def world(kernel: Kernel) -> World:
    return WORLDS[kernel.family]


def answer(world: World, payload: bytes) -> Packet:
    """The backend's, to what first() is."""
    return Packet(world.backend, world.client, 9376, 40000, SCTP, payload=payload)


@pytest.mark.rule("CO-23")
def test_udp_in_fragments(kernel: Kernel, world: World) -> None:
    kernel.service(world.vip, 53, [(world.backend, 5353)], protocol=Protocol.UDP)
    whole = first(world, UDP, port=53).but(payload=bytes(range(256)) * 10)
    datagram = whole.transport()
    parts = [datagram[at : at + 1024] for at in range(0, len(datagram), 1024)]

    def fragments(packet: Packet, parts: list[bytes]) -> list[Packet]:
        frames = []
        for number, part in enumerate(parts):
            shape = (number * 1024, number + 1 < len(parts))
            if number:
                frames.append(packet.but(fragment=shape, payload=part))
            else:
                frames.append(packet.but(fragment=shape, payload=part[8:]))
        return frames

    # the first fragment carries length and checksum of the whole datagram
    frames = [packet.frame() for packet in fragments(whole, parts)]
    place = 14 + (20 if kernel.family is Family.IPV4 else 48) + 6
    frames[0] = frames[0][: place - 2] + datagram[4:8] + frames[0][place + 2 :]

    assert kernel.run("pod_ingress", frames[1]).dropped
    assert kernel.count("LATER_FRAGMENT") == 1
    out = [kernel.run("pod_ingress", frame) for frame in frames]
    assert all(result.passed and result.packet.destination == world.backend for result in out)
    body = b"".join(r.frame[place - 6 :] for r in out)
    joined = whole.but(destination=world.backend, destination_port=5353)
    assert body == joined.transport()


@pytest.mark.rule("CO-26")
@pytest.mark.parametrize("headers", range(1, 9))
def test_ipv6_extension_headers(kernel: Kernel, world: World, headers: int) -> None:
    """As many as hosts send in earnest are followed; with more a packet goes on as it came."""
    if kernel.family is Family.IPV4:
        return
    kernel.service(world.vip, 80, [(world.backend, 9376)])
    options = (60, bytes([0, 0, 1, 4, 0, 0, 0, 0]))
    sent = first(world).but(extensions=(options,) * headers)
    got = kernel.run("pod_ingress", sent)
    assert got.passed
    if headers <= FOLLOWED:
        assert got.packet.valid
        assert got.packet == sent.but(destination=world.backend, destination_port=9376)
    else:
        assert got.frame == sent.frame()
    assert kernel.count("HEADER_CHAIN") == (headers > FOLLOWED)


@pytest.mark.rule("CO-25")
def test_udp_without_checksum_stays_without(kernel: Kernel, world: World) -> None:
    if kernel.family is Family.IPV6:
        sent = first(world, UDP)  # there it is mandatory
    else:
        sent = first(world, UDP).but(udp_checksum=False)
    kernel.service(world.vip, 80, [(world.backend, 9376)], protocol=Protocol.UDP)
    result = kernel.run("pod_ingress", sent)
    assert result.packet.valid and result.packet.udp_checksum == sent.udp_checksum


def test_an_unwritten_sctp_checksum_stays_unwritten(kernel: Kernel, world: World) -> None:
    kernel.service(world.vip, 80, [(world.backend, 9376)], protocol=Protocol.SCTP)
    sent = first(world, SCTP)
    frame = sent.frame()
    place = len(frame) - len(sent.payload) - 4
    result = kernel.run("pod_ingress", frame[:place] + bytes(4) + frame[place + 4 :])
    assert result.packet.destination_port == 9376
    assert result.frame[place : place + 4] == bytes(4)


def test_joined_sctp_is_translated_by_its_header_alone(kernel: Kernel, world: World) -> None:
    """Its chunks follow in pieces, each as it is to be cut: there is nothing to be read of them."""
    kernel.service(world.vip, 80, [(world.backend, 9376)], protocol=Protocol.SCTP)
    opening = first(world, SCTP)
    for sent, end in ((opening, "pod_ingress"), (answer(world, INIT_ACK), "pod_egress")):
        assert kernel.run(end, sent).passed
    data, reply = opening.but(payload=b""), answer(world, b"")
    there = kernel.run("pod_ingress", data, segment=JOINED)
    assert there.passed and not kernel.count("TRUNCATED")
    assert (there.packet.destination, there.packet.destination_port) == (world.backend, 9376)
    back = kernel.run("pod_egress", reply, segment=JOINED)
    assert back.passed and (back.packet.source, back.packet.source_port) == (world.vip, 80)
    # the backend goes on, so both have been heard
    assert [state_of(word) for word, _ in kernel.flows()] == [ESTABLISHED]
    # by itself such a packet is broken
    assert kernel.run("pod_ingress", data).frame == data.frame()
    assert kernel.count("TRUNCATED") == 1

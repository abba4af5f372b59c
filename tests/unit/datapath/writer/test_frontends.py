"""Whose an address is, and what becomes of a ClusterIP's other ports."""

from dataclasses import replace

import pytest

from ebpf_lb.model.values import Family, Protocol
from ebpf_lb.plan.forwarding import (
    Frontend,
    FrontendKind,
    ServicePortName,
)
from tests.unit.datapath.writer.fake_maps import FakeMaps
from tests.unit.datapath.writer.writing import address, forwarding, from_scratch, writer_of


def test_a_frontend_moves_between_service_ports_in_any_order() -> None:
    for create_first in (True, False):
        fake = FakeMaps(Family.IPV4)
        writer = writer_of(fake)
        writer.set(forwarding("a"))
        if create_first:
            writer.set(forwarding("b"))
        writer.delete(forwarding("a").name)
        writer.set(forwarding("b"))
        assert fake.state() == from_scratch([forwarding("b")])


def test_unserved_stays_while_one_service_port_has_the_address() -> None:
    fake = FakeMaps(Family.IPV4)
    writer = writer_of(fake)
    other = replace(
        forwarding("web"),
        name=ServicePortName("default", "web", "https", Protocol.TCP),
        frontends=(Frontend(address(Family.IPV4, 100), 443, FrontendKind.CLUSTER_IP),),
    )
    writer.set(forwarding("web"))
    writer.set(other)
    key = fake.layout.struct("frontend_key").pack(
        address=address(Family.IPV4, 100), port=0, protocol=0
    )
    writer.delete(forwarding("web").name)
    assert key in fake.tables["frontends"].content
    writer.delete(other.name)
    assert fake.tables["frontends"].content == {}


@pytest.mark.parametrize("gone", ["deleted", "moved"])
def test_a_cluster_ip_that_becomes_somebody_elses_external_ip(gone: str) -> None:
    """What it was refused on its other ports must not outlive it, without any restart."""
    fake = FakeMaps(Family.IPV4)
    writer = writer_of(fake)
    writer.set(forwarding("web"))
    place = forwarding("web").frontends[0]
    other = forwarding("other", frontends=(place._replace(kind=FrontendKind.EXTERNAL_IP),))
    writer.set(other)
    if gone == "deleted":
        writer.delete(forwarding("web").name)
        assert fake.state() == from_scratch([other])
    else:
        writer.set(forwarding("web", vips=(101,)))
        assert fake.state() == from_scratch([other, forwarding("web", vips=(101,))])


def test_what_somebody_else_took_out_leaves_the_count_right() -> None:
    fake = FakeMaps(Family.IPV4, frontends=3)
    writer = writer_of(fake)
    four = [Frontend(address(Family.IPV4, last), 80, FrontendKind.EXTERNAL_IP) for last in range(4)]
    one = forwarding("web", frontends=(four[0],))
    writer.set(one)
    (key,) = fake.tables["frontends"].content
    assert fake.tables["frontends"].delete(key)
    writer.set(replace(one, frontends=()))
    writer.set(replace(one, frontends=tuple(four[1:])))
    assert len(fake.tables["frontends"].content) == 3

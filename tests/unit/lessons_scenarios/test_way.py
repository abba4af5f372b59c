"""A connection's way out of captured frames: recorded ones, and all that can make it hard."""

import struct

import pytest

from ebpf_lb.containers.podserver.sctp import ABORT, INIT, INIT_ACK, init_value
from ebpf_lb.lessons.scenarios import catalog, svg, text
from ebpf_lb.lessons.scenarios.way import Story, Way, tell
from tests.support.packets import ACK, ICMP, RST, SCTP, UDP, Packet
from tests.unit.lessons_scenarios.recorded_frames import Made, recorded, syn

CLIENT, PORT = "172.31.0.2:40000", "172.30.0.12:30080"


def places(way: Way | None) -> list[str]:
    assert way is not None
    return [f"{t.machine} {t.interface} {'out' if t.outgoing else 'in'}" for t in way.taps]


def rewritings(way: Way | None) -> list[str]:
    """Where what was changed, as `node2 source A B`."""
    assert way is not None
    return [
        f"{way.taps[index].machine} {change.field} {change.before} {change.after}"
        for index in range(len(way.taps))
        for change in way.changes(index)
    ]


@pytest.mark.parametrize("family", ["ipv4", "ipv6"])
def test_cross_node_snat_is_done_and_undone_on_the_node_of_the_node_port(family: str) -> None:
    recording = recorded(f"cross-node-snat-{family}")
    story = tell(recording)
    assert story.first is not None and story.answer is not None
    asked = str(recording.connection.asked)
    client = str(story.first.taps[0].packet.source)
    snat, backend = (str(end) for end in story.first.taps[-1].packet.endpoints)
    assert rewritings(story.first) == [
        f"node2 source {client} {snat}",
        f"node2 destination {asked} {backend}",
    ]
    assert rewritings(story.answer) == [
        f"node2 source {backend} {asked}",
        f"node2 destination {snat} {client}",
    ]
    assert places(story.first)[0] == "client eth0 out"
    assert places(story.first)[-1] == "web-1 eth0 in" == f"{story.backend} eth0 in"
    assert [tap.machine for tap in story.answer.taps][::-1] == [
        tap.machine for tap in story.first.taps
    ]
    assert recording.connection.text == snat  # what the pod itself says of its client


def test_the_rest_of_a_connection_goes_the_same_ways() -> None:
    story = tell(recorded("hostnames"))
    assert len(story.others) >= 6
    assert story.strays == ()


def test_a_cluster_ip_is_rewritten_on_the_clients_node_only() -> None:
    story = tell(recorded("hostnames"))
    assert {r.split()[0] for w in (story.first, story.answer) for r in rewritings(w)} == {"node1"}
    assert story.backend == story.connection.text


def test_a_hairpin_leaves_the_pod_and_comes_back_by_one_interface() -> None:
    """The stack forwards it between the two rewritings."""
    story = tell(recorded("hairpin"))
    for way in (story.first, story.answer):
        asked, wire_in, bridge_in, bridge_out, wire_out, got = places(way)
        assert (asked, bridge_in, bridge_out, got) == (
            "web-1 eth0 out", "node1 cni0 in", "node1 cni0 out", "web-1 eth0 in",
        )  # fmt: skip
        assert wire_in.removesuffix(" in") == wire_out.removesuffix(" out")
        assert [(i, c.field) for i in range(6) for c in way.changes(i)] == [
            (2, "destination"), (4, "source"),
        ]  # fmt: skip


def test_what_is_dropped_ends_where_it_was_seen_last() -> None:
    story = tell(recorded("etp-local-drop"))
    assert places(story.first)[-1] == "node2 eth0 in"
    assert (story.answer, story.backend) == (None, "")
    assert [drop.reason for drop in story.drops if drop.machine == "node2"] == [
        "NO_LOCAL_ENDPOINTS"
    ]


def test_a_rewriting_at_the_socket_shows_in_what_was_asked() -> None:
    """Connect-time translation leaves no trace on any wire but the first packet's destination."""
    made = Made("10.96.0.9:80", machine="node2")
    sent = syn("172.30.0.12:40000", "10.244.1.2:9376")
    made.at("node2 eth0 out", sent)
    made.at("web-1 eth0 in", sent)
    story = tell(made.recording())
    assert story.at_socket is not None
    assert story.at_socket.before == story.connection.asked
    assert str(story.at_socket.after) == "10.244.1.2:9376"
    told = text.render(catalog.load("node-socket"), [story])
    assert "node2 rewrites at the socket  destination  10.96.0.9:80 → 10.244.1.2:9376" in told
    assert "rewrites at the socket" in svg.render(catalog.load("node-socket"), story)
    assert tell(recorded("hostnames")).at_socket is None


def test_frames_of_other_connections_are_left_out() -> None:
    made = Made(PORT)
    made.at("client eth0 out", syn("172.31.0.2:41111", PORT, sequence=9))
    made.at("client eth0 out", syn(CLIENT, PORT))
    made.at("node2 eth0 in", syn(CLIENT, PORT))
    made.at("node2 eth0 in", syn(CLIENT, PORT, sequence=8000))
    made.at("node2 eth0 in", syn(CLIENT, PORT, flags=ACK, sequence=7001, acknowledged=5))
    story = tell(made.recording())
    assert places(story.first) == ["client eth0 out", "node2 eth0 in"]
    assert story.others == ()


def test_nothing_was_sent() -> None:
    made = Made(PORT)
    made.at("client eth0 out", syn("172.31.0.2:41111", PORT))
    assert tell(made.recording()) == Story(
        made.recording().connection, made.recording().machines, made.recording().wires, ()
    )


def test_equal_times_keep_the_order_of_taps_and_pods_come_last() -> None:
    """A bridge's port and the bridge see a frame at one time; so may a node and its pod."""
    made = Made(PORT)
    for place in ("web-1 eth0 in", "node1 eth0 in", "node1 cni0 in"):
        made.at(place, syn(CLIENT, PORT))
    made.at("client eth0 out", syn(CLIENT, PORT))
    frames = made.recording().frames
    same = tuple(
        type(f)(f.machine, f.interface, f.outgoing, False, f.machine != "client", f.number, f.data)
        for f in frames
    )
    story = tell(made.recording(frames=same))
    assert places(story.first) == [
        "client eth0 out", "node1 eth0 in", "node1 cni0 in", "web-1 eth0 in",
    ]  # fmt: skip


def test_what_a_bridge_floods_is_not_on_the_way() -> None:
    made = Made(PORT)
    inner = syn(CLIENT, "10.244.1.2:9376")
    made.at("client eth0 out", inner)
    made.at("node1 eth0 in", inner)
    made.at("node1 cni0 out", inner)
    made.at("node1 veth2 out", inner)
    made.at("web-2 eth0 in", inner, other_host=True)
    made.at("node1 veth1 out", inner)
    made.at("web-1 eth0 in", inner)
    assert places(tell(made.recording()).first) == [
        "client eth0 out", "node1 eth0 in", "node1 cni0 out", "node1 veth1 out", "web-1 eth0 in",
    ]  # fmt: skip


def test_the_routers_ports_are_only_wires() -> None:
    made = Made(PORT)
    for place in (
        "client eth0 out", "router client1 in", "router outside in", "router underlay out",
        "router node2 out", "node2 eth0 in",
    ):  # fmt: skip
        made.at(place, syn(CLIENT, PORT))
    assert places(tell(made.recording()).first) == [
        "client eth0 out", "router outside in", "router underlay out", "node2 eth0 in",
    ]  # fmt: skip


def test_xdp_that_sends_back_is_seen_at_the_wires_other_end() -> None:
    """XDP comes before a machine's own taps: what node2 did shows only at the router's port."""
    made = Made(PORT)
    turned = syn("172.30.0.12:40000", "10.244.1.2:9376")
    made.at("client eth0 out", syn(CLIENT, PORT))
    made.at("router node2 out", syn(CLIENT, PORT))
    made.at("router node2 in", turned)
    made.at("router node1 out", turned)
    made.at("node1 eth0 in", turned)
    way = tell(made.recording()).first
    assert places(way) == ["client eth0 out", "node2 eth0 in", "node2 eth0 out", "node1 eth0 in"]
    assert way is not None and [tap.on_wire for tap in way.taps] == [False, True, True, False]
    assert [r.split()[:2] for r in rewritings(way)] == [["node2", s] for s in
                                                        ("source", "destination")]  # fmt: skip


def test_a_loop_is_told_once() -> None:
    made = Made(PORT)
    made.at("client eth0 out", syn(CLIENT, PORT))
    for ttl in (63, 62, 61):
        made.at("node2 eth0 in", syn(CLIENT, PORT, ttl=ttl))
        made.at("node2 eth0 out", syn(CLIENT, PORT, ttl=ttl - 1))
    way = tell(made.recording()).first
    assert places(way) == ["client eth0 out", "node2 eth0 in", "node2 eth0 out"]
    assert way is not None and way.repeats


def test_a_refusal_is_the_answer() -> None:
    made = Made(PORT, outcome="refused")
    made.at("client eth0 out", syn(CLIENT, PORT))
    made.at("node2 eth0 in", syn(CLIENT, PORT))
    reset = syn(CLIENT, PORT).reply(flags=RST | ACK, sequence=0, acknowledged=7001)
    made.at("node2 eth0 out", reset)
    made.at("client eth0 in", reset)
    story = tell(made.recording())
    assert places(story.answer) == ["node2 eth0 out", "client eth0 in"]
    assert story.answer is not None and story.answer.name == "RST"


@pytest.mark.parametrize("protocol", ["TCP", "UDP"])
def test_an_icmp_error_is_known_by_what_it_quotes(protocol: str) -> None:
    made = Made(PORT, protocol=protocol, outcome="refused")
    sent = syn(CLIENT, PORT)
    if protocol == "UDP":
        sent = sent.but(protocol=UDP, payload=b"hostname")
    made.at("client eth0 out", sent)
    made.at("node2 eth0 in", sent)
    another = (
        sent.but(sequence=5, payload=b"another")
        if protocol == "TCP"
        else sent.but(payload=b"another")
    )
    for quoted in (another, sent):
        body = struct.pack("!BBHI", 3, 3, 0, 0) + quoted.frame()[14:]
        error = Packet("172.30.0.12", "172.31.0.2", protocol=ICMP, payload=body)
        made.at("node2 eth0 out", error)
    story = tell(made.recording())
    assert story.answer is not None
    assert (len(story.answer.taps), story.answer.name) == (1, "ICMP port unreachable")


def test_datagrams_are_known_by_what_they_carry() -> None:
    made = Made(PORT, protocol="UDP", outcome="answered", text="web-1")
    asked = syn(CLIENT, PORT).but(protocol=UDP, payload=b"hostname")
    inside = syn(CLIENT, "10.244.1.2:9376").but(protocol=UDP, payload=b"hostname")
    made.at("client eth0 out", asked)
    made.at("node2 eth0 in", asked)
    made.at("web-1 eth0 in", inside)
    made.at("web-1 eth0 out", inside.reply(payload=b"web-1"))
    made.at("client eth0 in", asked.reply(payload=b"web-1"))
    made.at("client eth0 in", asked.reply(payload=b"something else"))
    story = tell(made.recording())
    assert places(story.first) == ["client eth0 out", "node2 eth0 in", "web-1 eth0 in"]
    assert rewritings(story.answer) == [f"client source 10.244.1.2:9376 {PORT}"]


def chunk(kind: int, value: bytes = b"") -> bytes:
    return struct.pack("!BBH", kind, 0, 4 + len(value)) + value


def test_associations_are_known_by_the_tags_that_their_ends_gave_out() -> None:
    """The client gave out 5, the server 7; another association's are of other numbers."""
    made = Made(PORT, protocol="SCTP", outcome="refused")
    asked = syn(CLIENT, PORT).but(protocol=SCTP)
    inside = syn(CLIENT, "10.244.1.2:9376").but(protocol=SCTP)
    init, other = (chunk(INIT, init_value(tag, 100)) for tag in (5, 6))
    init_ack = chunk(INIT_ACK, init_value(7, 200))
    made.at("node2 eth0 in", asked.but(tag=0, payload=other))
    made.at("client eth0 out", asked.but(tag=0, payload=init))
    made.at("node2 eth0 in", asked.but(tag=0, payload=init))
    made.at("web-1 eth0 in", inside.but(tag=0, payload=init))
    made.at("web-1 eth0 out", inside.reply().but(tag=5, payload=init_ack))
    made.at("client eth0 in", asked.reply().but(tag=6, payload=init_ack))
    made.at("client eth0 in", asked.reply().but(tag=5, payload=init_ack))
    made.at("client eth0 out", asked.but(tag=7, payload=chunk(ABORT)))
    made.at("client eth0 out", asked.but(tag=8, payload=chunk(ABORT)))
    story = tell(made.recording())
    assert [(way.name, len(way.taps)) for way in story.ways] == [
        ("INIT", 3), ("INIT-ACK", 2), ("ABORT", 1),
    ]  # fmt: skip
    assert rewritings(story.first) == [f"web-1 destination {PORT} 10.244.1.2:9376"]
    assert rewritings(story.answer) == [f"client source 10.244.1.2:9376 {PORT}"]


@pytest.mark.parametrize("kind", ["VXLAN", "UDP"])
def test_packets_in_tunnels_are_known_too(kind: str) -> None:
    made = Made(PORT)
    inner = syn(CLIENT, "10.244.1.2:9376")
    vxlan = struct.pack("!II", 0x08000000, 1 << 8) + inner.frame()
    port, payload = (8472, vxlan) if kind == "VXLAN" else (8285, inner.frame()[14:])
    outer = Packet("172.30.0.12", "172.30.0.11", 5555, port, protocol=UDP, payload=payload)
    made.at("client eth0 out", inner)
    made.at("node2 flannel.1 out", inner)
    made.at("node2 eth0 out", outer)
    way = tell(made.recording()).first
    assert way is not None and [tap.packet.tunnel for tap in way.taps] == [
        None, None, ("172.30.0.12", "172.30.0.11", kind),
    ]  # fmt: skip
    assert rewritings(way) == []


def test_a_later_packet_by_another_way_is_noticed() -> None:
    made = Made(PORT, outcome="answered")
    made.at("client eth0 out", syn(CLIENT, PORT))
    made.at("node2 eth0 in", syn(CLIENT, PORT))
    made.at("node2 eth0 out", syn(CLIENT, PORT).reply(sequence=500, acknowledged=7001))
    later = syn(CLIENT, PORT, flags=ACK, sequence=7001, acknowledged=501)
    made.at("client eth0 out", later)
    made.at("node1 eth0 in", later)
    story = tell(made.recording())
    assert [places(way) for way in story.strays] == [["client eth0 out", "node1 eth0 in"]]

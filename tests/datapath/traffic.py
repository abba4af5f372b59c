"""What goes through a scene: questions, whole conversations, one socket that asks everybody, and
datagrams in fragments."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator

from tests.datapath import judge
from tests.datapath.mutation import error_about, good_frame
from tests.datapath.reference import (
    HOOKS,
    LOOPBACK_OUT,
    POD_IN,
    UPLINK_IN,
    UPLINK_OUT,
    Observed,
    Ruling,
)
from tests.datapath.reference.flows import datagram_of
from tests.datapath.scene import ADDRESSES, ENTRIES, Entry, Scene, ends
from tests.support.fragments import join, split
from tests.support.packets import GATEWAY_MAC, SCTP, TCP, UDP, Packet, parse

Seen = Counter[tuple[str, str]]
"""How often each (hook, fate) was met."""

BEGINNINGS = (POD_IN, UPLINK_IN, UPLINK_OUT, LOOPBACK_OUT)


def visit(scene: Scene, seen: Seen, hook: str, frame: bytes) -> tuple[Ruling, Observed]:
    """One packet at one hook, at XDP first in half of the cases."""
    scene.xdp = scene.rng.random() < 0.5
    ruling, got = scene.visit(hook, frame)
    seen[hook, ruling.fate] += 1
    if got.counted["XDP"]:
        seen["xdp", ruling.fate] += 1
    return ruling, got


def clients(scene: Scene, hook: str) -> tuple[str, ...]:
    """Who may be seen there first."""
    of = ADDRESSES[scene.kernel.family]
    return {POD_IN: of.pods, UPLINK_IN: (*of.outside, *of.far)}.get(hook, (of.node, of.second))


def entries(hook: str) -> list[Entry]:
    """Whom packets at this hook may ask: by loopback, only addresses of the node's own."""
    return [e for e in ENTRIES if hook != LOOPBACK_OUT or e.address in ("node", "second")]


def questions(scene: Scene, count: int) -> Iterator[tuple[str, bytes]]:
    """What clients of all kinds ask of Services, and the hook where that is seen first."""
    of, rng = ADDRESSES[scene.kernel.family], scene.rng
    for number in range(count):
        hook = rng.choice((*BEGINNINGS, UPLINK_IN))
        entry = rng.choice(entries(hook))
        protocol = rng.choice((TCP, UDP, SCTP))
        payload = b"\0\0\0\4" * 6 if protocol == SCTP else rng.randbytes(rng.choice((0, 9, 40)))
        yield (
            hook,
            Packet(
                rng.choice(clients(scene, hook)),
                getattr(of, entry.address),
                rng.choice((30080, 40000 + number, 50000 + number)),
                entry.port,
                protocol,
                payload=payload,
                ttl=64,
            ).frame(),
        )


def unanswerable(scene: Scene, count: int) -> Iterator[tuple[str, bytes]]:
    """What asks Services without endpoints, from where no answer can be sent to."""
    of = ADDRESSES[scene.kernel.family]
    for number in range(count):
        packet = Packet(of.odd[number % len(of.odd)], of.cluster_ip, 40000 + number, 81, TCP)
        for hook in BEGINNINGS:
            yield hook, packet.frame()


def one_for_all(scene: Scene) -> Iterator[tuple[str, bytes]]:
    """A client asks all Services by one port: more than its home in the connection table holds."""
    of, rng = ADDRESSES[scene.kernel.family], scene.rng
    hook = rng.choice(BEGINNINGS[:3])
    client, protocol = rng.choice(clients(scene, hook)), rng.choice((TCP, UDP))
    for entry in rng.sample(ENTRIES, len(ENTRIES)):
        packet = Packet(client, getattr(of, entry.address), 30053, entry.port, protocol)
        yield hook, packet.frame()


def answered(frame: bytes) -> bytes:
    """The answer to a frame that has left, sent to this node."""
    return GATEWAY_MAC + judge.turned(frame)[6:]


def talk(scene: Scene, seen: Seen, asked: Iterable[tuple[str, bytes]]) -> list[bytes]:
    """Questions, answers, and errors about both, through all hooks; the frames of all of them."""
    rng, of = scene.rng, ADDRESSES[scene.kernel.family]
    frames = []
    for hook, question in asked:
        ruling, there = visit(scene, seen, hook, question)
        frames.append(question)
        if ruling.fate != "new flow":
            continue
        # what began at XDP goes on there, and few do
        again = 4 if there.counted["XDP"] else 0
        for _ in range(again):
            visit(scene, seen, hook, question)
        answer = answered(there.frame)
        senders = (of.router, rng.choice((of.far[0], of.pods[0])))
        frames += [answer, *(error_about(there.frame, sender, rng) for sender in senders)]
        for each in (*HOOKS, *(UPLINK_IN,) * again):
            ruling, back = visit(scene, seen, each, answer)
            if ruling.fate == "restored":
                frames.append(error_about(back.frame, rng.choice((of.router, *of.outside)), rng))
    return frames


def conversations(scene: Scene, seen: Seen, count: int) -> list[bytes]:
    """Frames of so many conversations, and as many that nobody asked for."""
    family, rng = scene.kernel.family, scene.rng
    frames = [good_frame(family, ends(family), rng) for _ in range(count)]
    frames += talk(scene, seen, questions(scene, count))
    frames += talk(scene, seen, one_for_all(scene))
    return frames


def datagrams(scene: Scene, seen: Seen, count: int) -> None:
    """Questions in fragments, and their answers. Whatever comes after the first fragment goes the
    way of that, whatever came before it goes none; put together, they are the whole again."""
    of, rng = ADDRESSES[scene.kernel.family], scene.rng
    for number in range(count):
        hook = rng.choice(BEGINNINGS)
        entry = rng.choice([e for e in entries(hook) if e.pods or e.far])
        whole = Packet(
            rng.choice(clients(scene, hook)),
            getattr(of, entry.address),
            20000 + number,
            entry.port,
            rng.choice((TCP, UDP)),
            payload=rng.randbytes(rng.randrange(60, 3000)),
            identification=1 + number // 3,  # several have the same one, at the same time
            ttl=64,
        )
        there = _in_fragments(scene, seen, hook, whole, ("new flow", "translated"))
        if not there:
            continue
        answer = parse(answered(join(there).frame()))
        for each in rng.sample(HOOKS, len(HOOKS)):
            _in_fragments(scene, seen, each, answer, ("restored",))


def _in_fragments(
    scene: Scene, seen: Seen, hook: str, whole: Packet, fates: tuple[str, ...]
) -> list[bytes]:
    """What became of them, if the first one had one of these fates."""
    rng = scene.rng
    first, *later = split(whole, rng.choice((32, 256) if len(whole.payload) < 300 else (256, 1480)))
    rng.shuffle(later)
    found = judge.read(first)
    if found and later and scene.reference.fragments.get(datagram_of(found)) is None:
        ruling, _ = visit(scene, seen, hook, later[0])
        assert ruling.fate in ("passed", "dropped: LATER_FRAGMENT"), (hook, ruling.fate)
    ruling, got = visit(scene, seen, hook, first)
    pieces = [got.frame]
    for piece in later if ruling.fate in fates else ():
        ruling, got = visit(scene, seen, hook, piece)
        assert ruling.fate in fates, (hook, ruling.fate, piece.hex())
        pieces.append(got.frame)
    if ruling.fate not in fates:
        return []
    assert join(pieces).valid
    return pieces

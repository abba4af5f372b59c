"""The connection table, read quickly: large, usually nearly empty, and changing under our eyes.

Half a million entries are looked through by their words alone, numbers in a row; only what is
wanted is taken apart.
"""

from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

from ebpf_lb.datapath.clock import time_bits
from ebpf_lb.datapath.reader.view import View

FLOW, SIGNPOST, PASS = "flow", "signpost", "pass"
"""A connection to a Service; what leads replies to one; a connection past the Services, kept so
that it is not taken for one."""
_A_SET = 4  # entries (bpf/connections/flow.h)
MASQUERADED = "masqueraded"  # a flow too; one bit of its word means something else


class Word(NamedTuple):
    """What an entry's word says (bpf/connections/flow.h)."""

    kind: str  # FLOW, SIGNPOST or PASS
    state: str
    protocol: str
    tick: int
    service_id: int
    source_id: int
    flags: tuple[str, ...]


class Entry(NamedTuple):
    """An entry in use: where it is in the table, and what it holds.

    A signpost leads a reply to its masqueraded flow. It holds in `client` the flow's own client,
    and in `vip` the address and port by which the backend knows it: the node's. Where it is HELD
    there is no flow: another connection has that address and port. A pass entry is a connection
    past the Services; its VIP is whom it asks.
    """

    set: int
    slot: int
    raw: int  # the word as a number
    word: Word
    client: bytes
    client_port: int
    vip: bytes
    vip_port: int
    backend: bytes
    backend_port: int
    snat_port: int


class Words:
    """Takes words apart."""

    def __init__(self, view: View) -> None:
        defines = view.layout.defines
        self._time_mask = defines["FLOW_TIME_MASK"]
        self._state = defines["FLOW_STATE_SHIFT"]
        self._protocol = defines["FLOW_PROTOCOL_SHIFT"]
        self._service = defines["FLOW_SERVICE_SHIFT"]
        self._source = defines["FLOW_SOURCE_SHIFT"]
        self._kind_mask = defines["FLOW_KIND_MASK"]
        self._kinds = {defines["FLOW_SIGNPOST"]: SIGNPOST, defines["FLOW_PASS"]: PASS}
        generation = defines["FLOW_GENERATION_MASK"] << defines["FLOW_GENERATION_SHIFT"]
        # the state's bits end where the protocol's begin
        self._state_mask = (1 << self._protocol - self._state) - 1
        self._flags = {
            FLOW: _bits(defines, "FLOW_", "PORTED", "BRIDGED"),
            MASQUERADED: _bits(defines, "FLOW_", "PORTED", "OF_XDP"),
            PASS: {},
            SIGNPOST: _bits(defines, "SIGNPOST_", "OF_NODE", "HELD"),
        }
        self._protocols = {number: name for name, number in view.short("flow_protocol").items()}
        states = view.short("flow_state")
        self._states = {number: name for name, number in states.items()}
        self._unused = {states["FREE"], states["CLAIMED"]}
        self._reset = states["RESET"]  # above it: whoever has been heard since
        self.lasting = ~(self._time_mask | generation)
        """The bits that do not change from packet to packet, nor from tenant to tenant."""

    def used(self, word: int) -> bool:
        """Not free, and not just being written."""
        return (word >> self._state & self._state_mask) not in self._unused

    def read(self, word: int) -> Word:
        state = min(word >> self._state & self._state_mask, self._reset)
        protocol = word >> self._protocol & 3
        kind = self._kinds.get(word & self._kind_mask, FLOW)
        signpost = kind == SIGNPOST  # in place of both numbers it has the place of its flow
        source = 0 if signpost else word >> self._source & 0xFF
        flags = self._flags[MASQUERADED if kind == FLOW and source else kind]
        return Word(
            kind,
            self._states.get(state, str(state)),
            self._protocols.get(protocol, str(protocol)),
            word & self._time_mask,
            0 if signpost else word >> self._service & 0xFFFF,
            source,
            tuple(name for name, bit in flags.items() if word & bit),
        )


def _bits(defines: Mapping[str, int], prefix: str, *names: str) -> dict[str, int]:
    return {name: defines[prefix + name] for name in names}


def entries(
    view: View, wanted: Callable[[Word], bool] = lambda word: True, holds: bytes = b""
) -> Iterator[Entry]:
    """What is in the table, by place. `wanted` judges by the word, before anything else is read;
    `holds` must stand somewhere in the entry: an address, say."""
    words = Words(view)
    entry = view.layout.struct("flow")
    for place, number, data in _wanted(view, words, wanted, holds):
        set_, slot = divmod(place, _A_SET)
        yield _entry(set_, slot, number, words.read(number), entry.unpack(data))


def longest_idle(
    view: View, wanted: Callable[[Word], bool] = lambda word: True, holds: bytes = b""
) -> Iterator[Entry]:
    """The same, whose last packet is longest ago first. Sorted by the words alone; entries are read
    one by one when they are asked for, and passed over if they are another's by then."""
    words = Words(view)
    entry = view.layout.struct("flow")
    now, bits = view.now or 0, time_bits()
    mask = (1 << bits) - 1
    places = [
        ((now - number) & mask) << 32 | place
        for place, number, _ in _wanted(view, words, wanted, holds)
    ]
    places.sort(reverse=True)
    table = view.map("flows")
    for found in places:
        set_, slot = divmod(found & 0xFFFFFFFF, _A_SET)
        value = (table.lookup(set_.to_bytes(4, "little")) if table else None) or b""
        data = value[slot * entry.size : (slot + 1) * entry.size]
        number = int.from_bytes(data[:8], "little")
        if words.used(number) and wanted(words.read(number)):
            yield _entry(set_, slot, number, words.read(number), entry.unpack(data))


def _wanted(
    view: View, words: Words, wanted: Callable[[Word], bool], holds: bytes
) -> Iterator[tuple[int, int, bytes]]:
    """Place in the table, word and bytes of each entry in use that is wanted."""
    size = view.layout.struct("flow").size
    verdicts: dict[int, bool] = {}  # what `wanted` said, by word without time and generation
    lasting_bits = words.lasting
    for first, stride, _, part in view.blocks("flows"):
        assert stride == size * _A_SET
        numbers = memoryview(part).cast("Q")[:: size // 8].tolist()
        for index, number in enumerate(numbers):
            if not number:
                continue
            lasting = number & lasting_bits
            verdict = verdicts.get(lasting)
            if verdict is None:
                verdict = words.used(number) and wanted(words.read(number))
                verdicts[lasting] = verdict
            if verdict:
                data = part[index * size : (index + 1) * size]
                if holds in data:
                    yield first * _A_SET + index, number, data


def _entry(set_: int, slot: int, raw: int, word: Word, one: Any) -> Entry:
    client, vip = (one.client, one.client_port), (one.vip, one.vip_port)
    if word.kind == SIGNPOST:  # it stands in the table by what a reply names
        client, vip = vip, client
    ports = (one.backend_port, one.snat_port)
    return Entry(set_, slot, raw, word, *client, *vip, one.backend, *ports)


def age_s(view: View, word: Word) -> float | None:
    """Seconds since the entry's last packet; None where the data path's clock is not known."""
    return view.age_s(word.tick, time_bits())


class Tally(NamedTuple):
    """How many connections of a Service port with one backend are in a state."""

    service_id: int
    backend: bytes
    backend_port: int
    state: str
    connections: int


def tally(view: View) -> list[Tally]:
    """All connections, counted. A million places take a fraction of a second."""
    words = Words(view)
    entry = view.layout.struct("flow")
    at, port_at = entry.offset("backend"), entry.offset("backend_port")
    width = view.family.address_bytes
    counted: dict[tuple[int, bytes, bytes], int] = {}
    for _, _, _, part in view.blocks("flows"):
        numbers = memoryview(part).cast("Q")[:: entry.size // 8].tolist()
        for start, number in zip(range(0, len(part), entry.size), numbers, strict=True):
            if number and words.used(number):
                backend = part[start + at : start + at + width]
                port = part[start + port_at : start + port_at + 2]
                key = (number & words.lasting, backend, port)
                counted[key] = counted.get(key, 0) + 1
    found: dict[tuple[int, bytes, int, str], int] = {}
    for (number, backend, port), times in counted.items():
        word = words.read(number)
        if word.kind == FLOW:
            place = (word.service_id, backend, int.from_bytes(port), word.state)
            found[place] = found.get(place, 0) + times
    return [Tally(*place, times) for place, times in sorted(found.items())]

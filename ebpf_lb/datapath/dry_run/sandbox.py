"""The node's programs once more in the kernel, where nothing that they do is seen by anybody.

They are the same instructions. Maps that programs only read are the live ones. Of all others they
have maps of their own: with what the live ones hold where that decides on a packet (who is
connected, who keeps to which backend), empty where it only counts or tells. So the live maps stay
as they are, bit for bit, and what the programs write is read off here afterwards.
"""

import struct
from collections import Counter
from collections.abc import Iterable
from contextlib import ExitStack
from typing import NamedTuple, Self

from ebpf_lb.datapath import layout
from ebpf_lb.datapath.layout import Reason
from ebpf_lb.datapath.libbpf import Map, MapType, Program
from ebpf_lb.datapath.loader import LoaderError, compiled, loading, maps, settings_of, source
from ebpf_lb.datapath.loader.image import SEED
from ebpf_lb.datapath.loader.programs import STACK
from ebpf_lb.datapath.reader import View
from ebpf_lb.errors import UserError

READ_ONLY = (
    "frontends",
    "vip_filter",
    "known_ends",
    "services",
    "slots",
    "backends",
    "source_ranges",
    "pod_networks",
    "service_networks",
    "interfaces",
    "snat_sources",
    "config",
    "crc32c_shifts",
)
"""Maps that no program writes."""

_COPIED = (
    "flows",
    "ways",
    "ways_back",
    "overflows",
    "turns",
    "connections",
    "masqueraded",
    "loopback_used",
    "direct_moved",
)
"""Arrays that programs write, and by which they decide on a connection's first packet."""

_SHRUNK = (
    "service_counters",
    "service_drops",
    "fragments",
    "fragment_ids",
    "affinity",
    "sockets",
    "names",
)
"""Maps that hold one packet's worth here."""

_SMALL = 1 << 10
_CHUNK_BYTES = 1 << 20
_MAPPABLE = 0x400
_MAC_BYTES = 6
_INTERFACES_AT, _CONTEXT_BYTES = 36, 192  # in struct __sk_buff: ingress_ifindex, ifindex

_SHARED = ("answer_refusal", "dropped", "sctp_checksum", "choice")
_OPENING = ("new_flow", "new_snat", "first", "second")


class Unavailable(UserError):
    """The programs cannot be run so here; the sentence says why."""


class Outcome(NamedTuple):
    """What a program made of a packet: its return value, the frame, and what was counted."""

    returned: int
    frame: bytes
    reasons: list[Reason]


class Sandbox:
    """One family's programs at TC, for `with`. Closed, it leaves nothing behind."""

    def __init__(self, view: View) -> None:
        """Unavailable."""
        self.view = view
        self._programs: dict[str, Program] = {}
        with ExitStack() as opened:
            try:
                self._prepare(view, opened)
            except (OSError, LoaderError) as error:
                raise Unavailable(str(error)) from error
            self._opened = opened.pop_all()

    def _prepare(self, view: View, opened: ExitStack) -> None:
        settings, sources = settings_of(view.build), layout.sources()
        if source.build_id(settings, sources) != view.build.path.resolve().name:
            raise LoaderError("the agent on this node has another version than this command")
        images = compiled(STACK, sources)
        if images is None:
            raise LoaderError("no compiled programs are installed beside this command")
        self._images = images[view.family]
        seed = maps.seed(view.family, view.build)
        facts, self._functions = source.kernel_facts()
        self._constants = source.filled_in(settings) | facts | {SEED: seed}
        self._live: dict[str, Map] = {}
        self._own: dict[str, Map] = {}
        for name, spec in view.layout.maps.items():
            path = maps.pinned_at(spec, view.family, view.build)
            self._live[name] = live = opened.enter_context(Map.open(path))
            if name not in READ_ONLY:
                self._own[name] = opened.enter_context(_like(live))

    def begin(self, client: bytes) -> None:
        """Makes the copies anew; of who keeps to which backend, only what is remembered of this
        client."""
        for name in _COPIED:
            _copy(self._live[name], self._own[name])
        affinity = self._own["affinity"]
        for key in list(affinity.keys()):
            affinity.delete(key)
        for key, value in self._live["affinity"].items():
            if client in key:
                affinity.update(key, value)

    def run(
        self, program: str, frame: bytes, ifindex: int, came_by: int, *, opens: bool
    ) -> Outcome:
        """`ifindex`: of the interface whose program it is; `came_by`: of the one by which the
        packet came to the node, 0 where the node sends it itself. `opens`: it is a connection's
        first packet, at the first program that sees it. Unavailable."""
        self._load(_with_calls(program, opens=opens))
        before = self._counted()
        frame = self._receiver(ifindex) + frame[_MAC_BYTES:]
        context = bytearray(_CONTEXT_BYTES)
        struct.pack_into("=II", context, _INTERFACES_AT, came_by, ifindex)
        try:
            done = self._programs[program].test_run(frame, ctx_in=bytes(context))
        except OSError as error:
            raise Unavailable(str(error)) from error
        added = self._counted() - before
        reasons = [self.view.layout.reasons[number] for number in sorted(added)]
        return Outcome(done.retval, done.data_out, reasons)

    def _load(self, names: Iterable[str]) -> None:
        """Those that are not there yet: it takes the kernel a while to verify all of them."""
        missing = {name: self._images[name] for name in names if name not in self._programs}
        if not missing:
            return
        together = self._live | self._own
        try:
            loaded = loading.load_apart(
                STACK, self.view.family, missing, together, self._constants, self._functions
            )
        except (OSError, loading.RefusedError) as error:
            raise Unavailable(str(error)) from error
        for name, program in loaded.items():
            self._programs[name] = self._opened.enter_context(program)

    def _receiver(self, ifindex: int) -> bytes:
        """The MAC address of frames that are for this node there."""
        known = self._live["interfaces"].lookup(ifindex.to_bytes(4, "little"))
        unpack = self.view.layout.struct("interface").unpack
        return bytes(unpack(known).mac) if known else bytes(_MAC_BYTES)

    def _counted(self) -> Counter[int]:
        """Packets by reason, of all CPUs."""
        counters = self._own["counters"]
        copies = len(counters.lookup(bytes(4)) or b"") // counters.stride
        rows = struct.iter_unpack(f"={2 * copies}Q", counters.slice(0, counters.max_entries))
        return Counter({number: sum(row[::2]) for number, row in enumerate(rows) if any(row)})

    def close(self) -> None:
        self._opened.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _with_calls(program: str, *, opens: bool) -> list[str]:
    """A program and those behind its tail calls that such a packet may come to."""
    role, _, way = program.partition("_")
    found = [program, *_SHARED]
    if way == "ingress":
        found += [f"{role}_{name}" for name in ("reply", *(_OPENING if opens else ()))]
    elif role != "loopback":
        found.append(f"{role}_leaves")
    if way == "egress" and opens:
        found += [f"node_{name}" for name in (*_OPENING[:3], "egress", "reply")]
    return found


def _like(live: Map) -> Map:
    """A map of the same shape, empty."""
    info, (_, _, _, entries, flags, *_) = live.info(), maps.kernel_shape(live)
    if live.name in _SHRUNK:
        entries = min(entries, _SMALL)
    return Map.create(MapType(info.type), info.key_size, info.value_size, entries, flags, live.name)


def _copy(live: Map, own: Map) -> None:
    """Writes only where both differ: large tables are nearly empty."""
    step = max(1, _CHUNK_BYTES // live.stride)
    for first in range(0, live.max_entries, step):
        count = min(step, live.max_entries - first)
        if live.flags & _MAPPABLE:
            with (
                live.mapped(first, count, writable=False) as theirs,
                own.mapped(first, count, writable=True) as ours,
            ):
                if theirs.data != ours.data:
                    ours.data[:] = theirs.data
            continue
        values = live.slice(first, count)
        if values != own.slice(first, count):
            keys = b"".join(number.to_bytes(4, "little") for number in range(first, first + count))
            own.update_batch(keys, values)

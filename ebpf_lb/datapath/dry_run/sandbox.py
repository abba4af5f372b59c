"""The node's programs once more in the kernel, where nothing that they do is seen by anybody.

They are the same instructions. Maps that programs only read are the live ones. Of all others they
have maps of their own: with what the live ones hold where that decides on a packet (who is
connected, who keeps to which backend), empty where it only counts or tells. So the live maps stay
as they are, bit for bit, and what the programs write is read off here afterwards.
"""

import struct
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from contextlib import ExitStack
from typing import NamedTuple, Self

from ebpf_lb.datapath import layout
from ebpf_lb.datapath.layout import Reason
from ebpf_lb.datapath.libbpf import Map, MapType, Program
from ebpf_lb.datapath.loader import LoaderError, compiled, loading, maps, settings_of, source
from ebpf_lb.datapath.loader.image import SEED, ProgramImage
from ebpf_lb.datapath.loader.programs import STACK, XDP, Unit, units
from ebpf_lb.datapath.reader import View
from ebpf_lb.errors import UserError
from ebpf_lb.model.values import Family

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
_MAC_BYTES = 6
_INTERFACES_AT, _CONTEXT_BYTES = 36, 192  # in struct __sk_buff: ingress_ifindex, ifindex

_SHARED = ("answer_refusal", "dropped", "sctp_checksum", "choice")
_OPENING = ("new_flow", "new_snat", "first", "second")
_XDP_OPENING = ("xdp_new_flow", "xdp_new_snat", "xdp_first")

NEXT, SHOT, SENT = 0xFFFFFFFF, 2, 7
"""TC's verdicts: TC_ACT_UNSPEC, TC_ACT_SHOT, TC_ACT_REDIRECT."""
_FROM_XDP = {1: SHOT, 2: NEXT, 3: SENT, 4: SENT}  # XDP_DROP, XDP_PASS, XDP_TX, XDP_REDIRECT


class Unavailable(UserError):
    """The programs cannot be run so here; the sentence says why."""


class Outcome(NamedTuple):
    """What a program made of a packet: verdict in TC's terms, frame, and what was counted."""

    returned: int
    frame: bytes
    reasons: list[Reason]


class Sandbox:
    """One family's programs, for `with`. Closed, it leaves nothing behind."""

    def __init__(self, view: View) -> None:
        """Unavailable."""
        self.view = view
        self.sockets: object | None = None  # at_socket.py keeps there what it has opened
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
        self._sources, self._units = sources, units(settings)
        self._images: dict[str, Mapping[str, ProgramImage]] = {}
        seed = maps.seed(view.family, view.build)
        facts, self._functions = source.kernel_facts()
        self._constants = source.filled_in(settings) | facts | {SEED: seed}
        self._live: dict[str, Map] = {}
        self._own: dict[str, Map] = {}
        self._calls: dict[str, Map] = {}
        for name, spec in view.layout.maps.items():
            path = maps.pinned_at(spec, view.family, view.build)
            self._live[name] = live = opened.enter_context(Map.open(path))
            if spec.scope is layout.Scope.CALLS:
                for unit in self._units:
                    self._calls[unit.name] = opened.enter_context(_like(live))
            elif name not in READ_ONLY:
                self._own[name] = opened.enter_context(_like(live))

    def begin(self, *clients: bytes) -> None:
        """Makes the copies anew; of who keeps to which backend, only what is remembered of these
        clients."""
        self.copy(*_COPIED)
        affinity = self._own["affinity"]
        for key in list(affinity.keys()):
            affinity.delete(key)
        for key, value in self._live["affinity"].items():
            if any(client in key for client in clients):
                affinity.update(key, value)

    def copy(self, *names: str) -> None:
        """Makes these copies anew."""
        for name in names:
            _copy(self._live[name], self._own[name])

    def live(self, name: str) -> Map:
        """To be read only."""
        return self._live[name]

    def written(self, name: str) -> Map:
        """What programs write here instead of the live map of that name."""
        return self._own[name]

    def own_source(self) -> bytes:
        """The address that stands for the node itself; zeros if it has none."""
        number = self.view.layout.defines["NODE_SOURCE_ID"]
        found = self._live["snat_sources"].lookup(number.to_bytes(4, "little"))
        unpack = self.view.layout.struct("snat_source").unpack
        return bytes(unpack(found).address) if found else bytes(self.view.family.address_bytes)

    def apart(self, name: str) -> Map:
        """One more map of the shape of the live one, with what is in that, an array."""
        live = self._live[name]
        own = self._opened.enter_context(_like(live))
        _copy(live, own)
        return own

    def run(
        self, program: str, frame: bytes, ifindex: int, came_by: int, *, opens: bool
    ) -> Outcome:
        """`ifindex`: of the interface whose program it is; `came_by`: of the one by which the
        packet came to the node, 0 where the node sends it itself. `opens`: it is a connection's
        first packet, at the first program that sees it. Unavailable."""
        context = bytearray(_CONTEXT_BYTES)
        struct.pack_into("=II", context, _INTERFACES_AT, came_by, ifindex)
        calls = _with_calls(program, opens=opens)
        return self._run(STACK, program, calls, frame, ifindex, bytes(context))

    def run_xdp(self, frame: bytes, ifindex: int, *, opens: bool) -> Outcome:
        """Likewise, the program at XDP. Unavailable."""
        unit = next((one for one in self._units if one.name == XDP.name), None)
        if unit is None:
            raise Unavailable("the node's settings have no XDP")
        # struct xdp_md: data, its end, no meta data, the interface and its first queue
        context = struct.pack("=6I", 0, len(frame), 0, ifindex, 0, 0)
        calls = ["xdp_ingress", "xdp_dropped", *(_XDP_OPENING if opens else ())]
        done = self._run(unit, "xdp_ingress", calls, frame, ifindex, context)
        return done._replace(returned=_FROM_XDP.get(done.returned, SHOT))

    def _run(
        self,
        unit: Unit,
        program: str,
        calls: Iterable[str],
        frame: bytes,
        ifindex: int,
        context: bytes,
    ) -> Outcome:
        missing = [name for name in calls if name not in self._programs]
        self._programs |= self.load(missing, unit)
        before = self.counted()
        frame = self._receiver(ifindex) + frame[_MAC_BYTES:]
        try:
            done = self._programs[program].test_run(frame, ctx_in=context)
        except OSError as error:
            raise Unavailable(str(error)) from error
        return Outcome(done.retval, done.data_out, self.reasons(self.counted() - before))

    def load(
        self,
        names: Iterable[str],
        unit: Unit = STACK,
        instead: Mapping[str, Map] | None = None,
    ) -> dict[str, Program]:
        """It takes the kernel a while to verify all of them, so each when it is needed. instead:
        maps that they have in the place of others. Unavailable."""
        images = {name: self._image(unit)[name] for name in names}
        if not images:
            return {}
        together = self._live | self._own | {"calls": self._calls[unit.name]} | dict(instead or {})
        try:
            loaded = loading.load_apart(
                unit, self.view.family, images, together, self._constants, self._functions
            )
        except (OSError, loading.RefusedError) as error:
            raise Unavailable(str(error)) from error
        for program in loaded.values():
            self._opened.enter_context(program)
        return loaded

    def _image(self, unit: Unit) -> Mapping[str, ProgramImage]:
        if unit.name not in self._images:
            found = compiled(unit, self._sources)
            if found is None:
                raise Unavailable("no compiled programs are installed beside this command")
            self._images[unit.name] = found[self.view.family]
        return self._images[unit.name]

    def _receiver(self, ifindex: int) -> bytes:
        """The MAC address of frames that are for this node there."""
        known = self._live["interfaces"].lookup(ifindex.to_bytes(4, "little"))
        unpack = self.view.layout.struct("interface").unpack
        return bytes(unpack(known).mac) if known else bytes(_MAC_BYTES)

    def reasons(self, counted: Iterable[int]) -> list[Reason]:
        return [self.view.layout.reasons[number] for number in sorted(counted)]

    def counted(self) -> Counter[int]:
        """Packets by reason, of all CPUs."""
        counters = self._own["counters"]
        copies = len(counters.lookup(bytes(4)) or b"") // counters.stride
        rows = struct.iter_unpack(f"={2 * copies}Q", counters.slice(0, counters.max_entries))
        return Counter({number: sum(row[::2]) for number, row in enumerate(rows) if any(row)})

    def closes(self, what: Callable[[], None]) -> None:
        """Likewise, before its own maps and programs."""
        self._opened.callback(what)

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
    mapped = layout.load(Family.IPV4).defines["ARRAY_MAPPED"]
    step = max(1, _CHUNK_BYTES // live.stride)
    for first in range(0, live.max_entries, step):
        count = min(step, live.max_entries - first)
        if live.flags & mapped:
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

"""Handing a node's Services over to another proxy without ending a connection.

Where there is no frontend, nothing begins here any more: what is new goes to the stack, and so to
the other proxy. What is in the connection table is served as before, since packets of a known flow
ask for no frontend. UDP does, once a tick: it belongs to whoever serves its address now, and goes
over at once.
"""

from collections.abc import Iterable

from ebpf_lb.datapath.libbpf import Map
from ebpf_lb.datapath.pins import Build
from ebpf_lb.datapath.reader import View
from ebpf_lb.datapath.reader.flows import tally
from ebpf_lb.datapath.sweep import FlowSweep
from ebpf_lb.model.values import Family

_OVER = frozenset({"ABORTED", "CLOSING", "RESET"})


class Drain:
    """Of one build's connections. The agent must not run: it would write frontends again."""

    def __init__(self, build: Build, families: Iterable[Family] = Family) -> None:
        """OSError, UserError: what is pinned is not of this version."""
        self._views = [View(build, one) for one in families if build.maps(one).exists()]
        self._sweeps = [FlowSweep(build, view.family) for view in self._views]

    def begin(self) -> None:
        """From now on no connection begins here."""
        for view in self._views:
            with Map.open(view.build.maps(view.family) / "frontends") as frontends:
                for keys, _ in list(frontends.chunks()):
                    frontends.delete_batch(keys)

    def left(self) -> int:
        """How many connections stand and are neither over nor forgotten."""
        for sweep in self._sweeps:
            sweep.step(1)
        return sum(
            one.connections for view in self._views for one in tally(view) if one.state not in _OVER
        )

"""Ends UDP flows whose backend no longer serves, or whose frontend another Service has by now.

A client's next packet finds that out by itself (bpf/services/still_serves.h). Until then the
backend that it had may go on talking, and its answers and ICMP errors are nobody's any more.
kube-proxy takes such entries out of the kernel's connection tracking, at once as well.
"""

from collections.abc import Mapping
from typing import Any, Protocol

from ebpf_lb.model.values import Family


class Departures(Protocol):
    """What is asked of `datapath.writer.FamilyWriter` here."""

    udp_departures: int


class Table(Protocol):
    """What is asked of `datapath.sweep.FlowSweep` here."""

    def end_stale(self) -> None: ...


class StaleFlows:
    def __init__(
        self, writers: Mapping[Family, Departures], tables: Mapping[Family, Table], log: Any
    ) -> None:
        self._writers = writers
        self._tables = tables
        self._log = log
        # None: what left while no agent ran is not known
        self._seen: dict[Family, int | None] = dict.fromkeys(writers)
        self._failed = False

    # rule: CO-15
    def check(self) -> None:
        """Call it every second or so. Costs nothing while nothing of a UDP Service leaves."""
        try:
            for family, writer in self._writers.items():
                departures = writer.udp_departures
                if departures != self._seen[family]:
                    self._tables[family].end_stale()
                    self._seen[family] = departures
        except OSError as error:
            if not self._failed:
                self._log.error("flows of backends that left could not be ended", error=str(error))
            self._failed = True
        else:
            self._failed = False

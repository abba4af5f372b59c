"""Takes the counts of Services that are gone out of the map `service_drops`.

Its keys name Services by number. A number rests for a second before it is another Service's
(datapath/writer), so whoever looks every second leaves nobody another one's drops.
"""

import struct

from ebpf_lb.datapath.layout import load
from ebpf_lb.datapath.libbpf import Map
from ebpf_lb.datapath.pins import Build
from ebpf_lb.model.values import Family

_INDEX = struct.Struct("=I")


class DropCounts:
    """One family's."""

    problem = ""

    def __init__(self, build: Build, family: Family) -> None:
        self._drops = Map.open(build.maps(family) / "service_drops")
        self._names = Map.open(build.maps(family) / "names")
        self._unpack = load(family).struct("service_drop_key").unpack

    def check(self) -> None:
        """Call it every second."""
        gone: dict[int, bool] = {0: False}
        stale = []
        for key in self._drops.keys():  # noqa: SIM118  # a map, not a dict
            number = self._unpack(key).service_id
            if number not in gone:
                gone[number] = self._names.lookup(_INDEX.pack(number)) is None
            if gone[number]:
                stale.append(key)
        for key in stale:
            self._drops.delete(key)

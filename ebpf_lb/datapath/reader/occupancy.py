"""How full each map is."""

from typing import NamedTuple

from ebpf_lb.datapath.reader import counters, services
from ebpf_lb.datapath.reader.view import View

HASH_MAPS = (
    "frontends",
    "names",
    "source_ranges",
    "pod_networks",
    "affinity",
    "fragments",
    "sockets",
    "interfaces",
)
_HARMLESS = frozenset({"affinity", "fragments", "sockets"})


class Level(NamedTuple):
    """`harmless`: whoever is longest unheard of makes room, so it may be full."""

    map: str
    used: int
    room: int
    harmless: bool

    @property
    def share(self) -> float:
        return self.used / self.room if self.room else 0.0


def levels(view: View) -> list[Level]:
    """Of all maps that can be full. Connections as the last sweep counted them."""
    found = [_level(view, name, used) for name, used in _arrays(view).items()]
    for name in HASH_MAPS:
        opened = view.map(name)
        if opened is not None:
            used = sum(len(keys) // opened.key_size for keys, _ in opened.chunks())
            found.append(_level(view, name, used))
    return [level for level in found if level.room]


def flow_level(view: View) -> tuple[int, int]:
    """Entries of the connection table as the last sweep counted them, and places."""
    flows = view.map("flows")
    if flows is None:
        return 0, 0
    census = counters.census(view)
    a_set = flows.value_size // view.layout.struct("flow").size
    return (census.total if census else 0), flows.max_entries * a_set


def _arrays(view: View) -> dict[str, int]:
    ports = list(services.service_ports(view))
    slots = sum(sum(one.cluster.values()) + sum(one.local.values()) for one in ports)
    return {
        "flows": flow_level(view)[0],
        "services": len(ports),
        "backends": sum(1 for _ in view.used_elements("backends")),
        "slots": slots,
    }


def _level(view: View, name: str, used: int) -> Level:
    opened = view.map(name)
    room = opened.max_entries if opened is not None else 0
    if name == "flows":
        room = flow_level(view)[1]
    return Level(name, used, room, name in _HARMLESS)

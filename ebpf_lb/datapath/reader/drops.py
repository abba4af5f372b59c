"""Drops and refusals as people ask for them: by reason and Service, and of a stretch of time."""

from collections.abc import Iterable, Mapping
from typing import NamedTuple

from ebpf_lb.datapath.layout import Reason, Verdict
from ebpf_lb.datapath.reader import counters
from ebpf_lb.datapath.reader.view import View

ENDINGS = (Verdict.REJECT, Verdict.DROP)


class Ending(NamedTuple):
    """What was counted together. `service`: namespace/name:port; "" where none is known."""

    family: str
    reason: Reason
    service: str
    protocol: str


Endings = Mapping[Ending, int]


def endings(views: Iterable[View]) -> dict[Ending, int]:
    """Packets dropped and refused since the maps were made."""
    found: dict[Ending, int] = {}
    for view in views:
        family = view.family.directory
        named: dict[int, int] = {}
        for drop in counters.service_drops(view):
            if drop.service is not None:
                ending = Ending(family, drop.reason, drop.service, drop.protocol or "")
                found[ending] = drop.packets
                named[drop.reason.number] = named.get(drop.reason.number, 0) + drop.packets
        for count in counters.reason_counts(view):
            rest = count.packets - named.get(count.number, 0)
            if count.reason and count.reason.verdict in ENDINGS and rest > 0:
                found[Ending(family, count.reason, "", "")] = rest
    return found


def since(before: Endings, after: Endings) -> dict[Ending, int]:
    """What came in addition. A counter that fell began anew."""
    added = {}
    for ending, packets in after.items():
        earlier = before.get(ending, 0)
        more = packets - earlier if packets >= earlier else packets
        if more:
            added[ending] = more
    return added

"""What the nodes' programs count of packets that they drop or refuse, read from their maps."""

from collections.abc import Iterable

from ebpf_lb.datapath.layout import Verdict
from ebpf_lb.datapath.reader import NothingPinned, open_views
from ebpf_lb.datapath.reader.counters import ReasonCount, reason_counts
from ebpf_lb.lab.names import NodeNames
from ebpf_lb.lessons.scenarios.recording import Drop
from ebpf_lb.model.values import Family

_WANTED = (Verdict.REJECT, Verdict.DROP)

Counted = dict[tuple[str, str], ReasonCount]


def counted(nodes: Iterable[NodeNames], family: Family) -> Counted:
    """(node, reason) -> what was counted. Nodes without our data path have none."""
    found: Counted = {}
    for node in nodes:
        try:
            [view] = open_views(node.bpffs, [family])
        except NothingPinned:
            continue
        for one in reason_counts(view):
            if one.packets and one.reason and one.reason.verdict in _WANTED:
                found[node.name, one.reason.name] = one
    return found


def since(before: Counted, after: Counted) -> tuple[Drop, ...]:
    """What came in addition."""
    drops = []
    for (node, reason), one in after.items():
        earlier = before.get((node, reason))
        packets = one.packets - (earlier.packets if earlier else 0)
        if packets and one.reason:
            drops.append(Drop(node, reason, one.reason.sentence, packets))
    return tuple(drops)

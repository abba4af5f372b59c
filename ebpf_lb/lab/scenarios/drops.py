"""What the nodes' programs count of packets that they drop or refuse, read from their maps."""

from collections.abc import Iterable

from ebpf_lb.datapath.dump import NothingPinned, Row, dump, open_views
from ebpf_lb.datapath.layout import Verdict
from ebpf_lb.lab.names import NodeNames
from ebpf_lb.lab.scenarios.recording import Drop
from ebpf_lb.model.values import Family

_WANTED = (Verdict.REJECT, Verdict.DROP)

Counted = dict[tuple[str, str], Row]


def counted(nodes: Iterable[NodeNames], family: Family) -> Counted:
    """(node, reason) -> the counter's row. Nodes without our data path have none."""
    found: Counted = {}
    for node in nodes:
        try:
            [view] = open_views(node.bpffs, [family])
        except NothingPinned:
            continue
        for row in dump(view, "counters"):
            if view.layout.reasons[row["number"]].verdict in _WANTED:
                found[node.name, str(row["reason"])] = row
    return found


def since(before: Counted, after: Counted) -> tuple[Drop, ...]:
    """What came in addition."""
    drops = []
    for (node, reason), row in after.items():
        packets = row["packets"] - before.get((node, reason), {"packets": 0})["packets"]
        if packets:
            drops.append(Drop(node, reason, str(row["meaning"]), packets))
    return tuple(drops)

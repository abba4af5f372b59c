"""The maps' contents in names people know. Reads only, and needs no agent."""

from ebpf_lb.datapath.dump.decoders import Row, dump, is_node_map, map_names
from ebpf_lb.datapath.dump.render import as_json, as_table
from ebpf_lb.datapath.dump.view import NothingPinned, View, open_views

__all__ = [
    "NothingPinned",
    "Row",
    "View",
    "as_json",
    "as_table",
    "dump",
    "is_node_map",
    "map_names",
    "open_views",
]

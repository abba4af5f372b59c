"""From `Forwarding` values to map contents, in an order that never shows half of a thing."""

from ebpf_lb.datapath.writer.family import FamilyWriter
from ebpf_lb.datapath.writer.family_maps import FamilyMaps
from ebpf_lb.datapath.writer.move import move_services
from ebpf_lb.datapath.writer.names import NotHashed, NotProgrammed, format_name, parse_name
from ebpf_lb.datapath.writer.node import NODE_SOURCE_ID, FullError
from ebpf_lb.datapath.writer.pools import full

__all__ = [
    "NODE_SOURCE_ID",
    "FamilyMaps",
    "FamilyWriter",
    "FullError",
    "NotHashed",
    "NotProgrammed",
    "format_name",
    "full",
    "move_services",
    "parse_name",
]

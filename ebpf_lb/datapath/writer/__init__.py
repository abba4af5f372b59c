"""From `Forwarding` values to map contents, in an order that never shows half of a thing."""

from ebpf_lb.datapath.writer.family import FamilyWriter
from ebpf_lb.datapath.writer.family_maps import FamilyMaps
from ebpf_lb.datapath.writer.names import NotProgrammed, format_name, parse_name

__all__ = ["FamilyMaps", "FamilyWriter", "NotProgrammed", "format_name", "parse_name"]

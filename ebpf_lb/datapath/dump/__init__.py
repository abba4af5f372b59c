"""The maps' contents as rows of plain values, for people and for scripts."""

from ebpf_lb.datapath.dump.decoders import Row, dump, is_node_map, map_names

__all__ = ["Row", "dump", "is_node_map", "map_names"]

"""What the pinned maps hold, as typed records in names people know. Reads only, and needs no agent.

Metrics, the sockets' upkeep and the commands stand on it; `dump` only prints it. A record's
addresses are bytes, as everywhere below the command line.
"""

from ebpf_lb.datapath.reader.view import NothingPinned, ServiceName, View, open_views

__all__ = ["NothingPinned", "ServiceName", "View", "open_views"]

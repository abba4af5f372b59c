"""What the node's own programs make of a packet that is not sent, and that changes nothing.

`sandbox`: the programs, once more in the kernel, on the live maps that they only read and on copies
of those that they write; `packet`: what they are run on; `journey`: from hook to hook, there and
back.
"""

from ebpf_lb.datapath.dry_run.journey import Hop, Journey, Place, travel
from ebpf_lb.datapath.dry_run.sandbox import Sandbox, Unavailable

__all__ = ["Hop", "Journey", "Place", "Sandbox", "Unavailable", "travel"]

"""What takes all of root's rights on a node, done before and apart from the agent: `--init-only`.

Mounting a bpffs takes CAP_SYS_ADMIN, and a container that is not privileged has its /proc/sys
read-only. All of it stays, and an agent that finds it done does none of it.
"""

from collections.abc import Iterator

from ebpf_lb.agent.config import Config
from ebpf_lb.agent.host.bpffs import ensure_bpffs
from ebpf_lb.agent.host.conntrack import Conntrack, raise_limits
from ebpf_lb.datapath.accept_local import SETTING, accept_local
from ebpf_lb.datapath.pins import Pins


def initialize(config: Config) -> Iterator[str]:
    """Sentences about what was done, and what could not be. UserError: nothing can work."""
    if ensure_bpffs(config.bpffs):
        yield f"Mounted a bpffs for {config.bpffs}."
    config.bpffs.mkdir(mode=0o700, parents=True, exist_ok=True)
    try:
        accept_local(Pins(config.bpffs))
    except OSError as error:
        yield f"{SETTING} cannot be set: {error.strerror}."
    for sentence in raise_limits(conntrack_limits(config)):
        yield f"Connection tracking: {sentence}."


def conntrack_limits(config: Config) -> Conntrack:
    return Conntrack(
        config.conntrack_max_per_core,
        config.conntrack_min,
        config.conntrack_tcp_established_s,
        config.conntrack_tcp_close_wait_s,
    )

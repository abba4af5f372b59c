"""What a CNI and a careful administrator put into a node's packet filter.

Both rules look at the kernel's own connection tracking, so they punish a load balancer that shows
it only half of a connection: it would masquerade a reply, or call it invalid.
"""

import subprocess

from ebpf_lb.errors import UserError
from ebpf_lb.lab.names import PODS
from ebpf_lb.model.values import Family


class FirewallError(UserError):
    """nftables is missing, or refused the rules."""


def rules(families: tuple[Family, ...]) -> str:
    """The rules as nft reads them: flannel's masquerading (whole pod network, multicast exempt)
    and the filter on connection state that hardening guides ask for."""
    masquerade = {
        Family.IPV4: f"ip saddr {PODS.ipv4} ip daddr != {{ {PODS.ipv4}, 224.0.0.0/4 }} masquerade",
        Family.IPV6: f"ip6 saddr {PODS.ipv6} ip6 daddr != {{ {PODS.ipv6}, ff00::/8 }} masquerade",
    }
    lines = "\n".join(f"    {masquerade[family]}" for family in families)
    return f"""\
table inet cni {{
  chain postrouting {{
    type nat hook postrouting priority srcnat;
{lines}
  }}
  chain forward {{
    type filter hook forward priority filter;
    ct state invalid counter drop
  }}
}}
"""


def install(families: tuple[Family, ...]) -> None:
    """Loads the rules into this thread's network namespace."""
    try:
        done = subprocess.run(
            ["nft", "-f", "-"], input=rules(families), capture_output=True, text=True
        )
    except FileNotFoundError:
        raise FirewallError("nft is missing: install the package nftables") from None
    if done.returncode:
        raise FirewallError(f"nft refused the node's rules: {done.stderr.strip()}")

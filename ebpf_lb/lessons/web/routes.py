"""A broken route: a node that no longer finds the way to another node's pods.

Broken by a rule of the kernel's that is looked at before any table, so that the routes themselves
stay as they are, however the lab's nodes are connected. Whether one is broken is asked of the
kernel: it is mended also if another page broke it."""

import json
import subprocess
import threading

from ebpf_lb.errors import UserError
from ebpf_lb.lab.cluster import Lab
from ebpf_lb.lab.names import NodeNames

_PREFERENCE = "99"  # after the local addresses' table, before all others
_switching = threading.Lock()


def broken(lab: Lab, node: NodeNames) -> tuple[str, ...]:
    """The nodes to whose pods its route is broken."""
    found = set()
    for family in ("-4", "-6"):
        rules = json.loads(_ip(lab, node, family, "-j", "rule", "show") or "[]")
        for rule in rules:
            if str(rule["priority"]) == _PREFERENCE:
                found.add(f"{rule['dst']}/{rule['dstlen']}")
    return tuple(other.name for other in lab.nodes() if found & set(other.pod_cidrs))


def switch(lab: Lab, node: NodeNames, other: NodeNames, *, works: bool) -> None:
    """Breaks or mends the route; nothing if it is so already."""
    with _switching:  # two clicks at once
        if (other.name not in broken(lab, node)) == works:
            return
        for network in other.pod_cidrs:
            family = "-6" if ":" in network else "-4"
            rule = ["to", network, "blackhole", "pref", _PREFERENCE]
            _ip(lab, node, family, "rule", "del" if works else "add", *rule)


def _ip(lab: Lab, node: NodeNames, *words: str) -> str:
    done: subprocess.CompletedProcess[str] = lab.exec(node.name, ["ip", *words])
    if done.returncode:
        raise UserError(f"`ip {' '.join(words)}` on {node.name} failed: {done.stderr.strip()}")
    return done.stdout

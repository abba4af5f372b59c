"""What the kernel tells of TC hooks, in a namespace of its own."""

import os
import queue
import subprocess
from pathlib import Path

from ebpf_lb.agent.network import hook_changes
from ebpf_lb.lab import namespaces, topology
from tests.capabilities import NETNS, ROOT, needs

pytestmark = needs(ROOT, NETNS)

# passes everything; in classic BPF, which every kernel with the bpf classifier takes
CLASSIC = "bpf bytecode 1,6_0_0_0"
HERE = f"eblb-hooks-{os.getpid()}"


def run(words: str) -> None:
    subprocess.run([w.replace("HERE", HERE).replace("_", " ") for w in words.split()], check=True)


def test_interfaces_whose_hooks_change_are_named() -> None:
    told: queue.Queue[frozenset[int] | None] = queue.Queue()

    def after(words: str) -> None:
        """Until this interface is named; others may be."""
        run(words)
        while (heard := told.get(timeout=60)) is not None and index not in heard:
            pass

    topology.make_namespace(Path("/run/netns") / HERE)
    try:
        with namespaces.entered(Path("/run/netns") / HERE):  # a thread is where its maker is
            hook_changes.follow(told.put)
        run("ip -n HERE link add d0 index 40 type veth peer name d1")
        index = 40
        after("tc -n HERE qdisc add dev d0 clsact")
        after("tc -n HERE filter add dev d0 ingress pref 7 protocol ip " + CLASSIC)
        after("tc -n HERE filter del dev d0 ingress pref 7")
        after("tc -n HERE filter add dev d0 egress pref 7 protocol ip " + CLASSIC)
        after("tc -n HERE filter del dev d0 egress")
        after("tc -n HERE qdisc del dev d0 clsact")
    finally:
        run("ip netns del HERE")


def test_other_messages_and_torn_ones_name_nothing() -> None:
    link = bytes([32, 0, 0, 0, 16, 0]) + bytes(26)  # RTM_NEWLINK
    torn = bytes([20, 0, 0, 0, 44, 0]) + bytes(10)  # RTM_NEWTFILTER without its body
    assert list(hook_changes.interfaces(link + torn)) == []
    of_none = bytes(32)  # a length of zero must not be read for ever
    assert list(hook_changes.interfaces(of_none)) == []

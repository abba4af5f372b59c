"""Neighbours that only packets of ours go to are asked whether they are still there.

The kernel asks when its own stack sends to a neighbour that it has not heard of for a while. What
our programs send with the address of the neighbour already in it, at XDP and at TC, it does not
count: without this, a neighbour that changes its MAC address (a machine replaced, an address moved)
would be sent packets at the old one for ever. The kernel's look-up serves entries of any age.
"""

import threading
import time
from collections.abc import Callable, Collection, Iterator
from contextlib import suppress
from typing import Any, Self

from pyroute2 import IPRoute
from pyroute2.netlink.exceptions import NetlinkError

INTERVAL_S = 15.0

_NUD_STALE = 0x04  # linux/neighbour.h: known, but not confirmed for a while
_NTF_USE = 0x01  # as if the stack had sent something there
_AT_ONCE = 4096  # of a very large network, the others next time: those asked are not stale then


def keep_asking(interfaces: Callable[[], Collection[int]]) -> None:
    """From now on, in a thread of its own, which asks for the interfaces each time."""

    def run() -> None:
        with Neighbours() as neighbours:
            while True:
                time.sleep(INTERVAL_S)
                with suppress(NetlinkError, OSError):  # the table was too busy to be read, perhaps
                    neighbours.ask(interfaces())

    threading.Thread(target=run, name="neighbours", daemon=True).start()


class Neighbours:
    """The neighbour tables of this thread's network namespace."""

    def __init__(self) -> None:
        self._ip = IPRoute()

    def ask(self, interfaces: Collection[int]) -> int:
        """Has the kernel ask the neighbours on these interfaces that it is unsure of; how many."""
        asked = 0
        for family, ifindex, address in list(self._stale(interfaces))[:_AT_ONCE]:
            # it may have gone meanwhile, with its interface or alone
            with suppress(NetlinkError):
                self._ip.neigh(
                    "set", family=family, ifindex=ifindex, dst=address, flags=_NTF_USE,
                    state=_NUD_STALE,
                )  # fmt: skip
                asked += 1
        return asked

    def close(self) -> None:
        self._ip.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def _stale(self, interfaces: Collection[int]) -> Iterator[tuple[int, int, Any]]:
        if not interfaces:
            return
        for message in self._ip.get_neighbours():
            if message["state"] & _NUD_STALE and message["ifindex"] in interfaces:
                yield message["family"], message["ifindex"], message.get_attr("NDA_DST")

"""Two tun devices in two network namespaces with a wire between them: a link without Ethernet
header, as a tunnel's two ends see it."""

import os
import select
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ebpf_lb.lab import namespaces
from ebpf_lb.lab.tun import open_tun


@contextmanager
def tun_wire(name: str, *ends: Path) -> Iterator[None]:
    """A device of this name in each of the two namespaces, down at first; both go at the end."""
    devices = []
    stop, stopped = os.pipe()
    try:
        for end in ends:
            with namespaces.entered(end):
                devices.append(open_tun(name))
        thread = threading.Thread(target=_carry, args=(*devices, stop))
        thread.start()
        try:
            yield
        finally:
            os.close(stopped)
            thread.join()
    finally:
        for one in (stop, *devices):
            os.close(one)


def _carry(one: int, other: int, stop: int) -> None:
    """Until `stop` can be read. What is sent to a device that is down is lost."""
    while True:
        ready, _, _ = select.select([one, other, stop], [], [])
        if stop in ready:
            return
        for here, there in ((one, other), (other, one)):
            if here in ready:
                try:
                    os.write(there, os.read(here, 65536))
                except OSError:
                    continue

"""Small labs for the meanwhile, beside the one that a step runs in."""

import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from ebpf_lb.errors import UserError
from ebpf_lb.lab.cluster import Lab

_NAME_LENGTH = 32


class BesideError(UserError):
    """A lab beside this one does not come up."""


@contextmanager
def labs_beside(lab: Lab, networks: Sequence[str]) -> Iterator[dict[str, Lab]]:
    """A lab of two nodes for each network, all made at once; they are taken down at the end.

    What an interrupted run left is replaced. BesideError: one does not come up."""
    made = {network: Lab(_name(lab, network)) for network in networks}
    try:
        for each in made.values():
            each.down()
        started = {network: _up(lab, made[network], network) for network in networks}
        complaints = [process.communicate()[1].strip() for process in started.values()]
        for process, complaint in zip(started.values(), complaints, strict=True):
            if process.returncode:
                raise BesideError(complaint)
        yield made
    finally:
        for each in made.values():
            each.down()


def _up(lab: Lab, made: Lab, network: str) -> subprocess.Popen[str]:
    words = [sys.executable, "-m", "ebpf_lb", "lab", "up", "--name", made.name]
    words += ["--network", network, "--nodes", "2", "--family", lab.options.family, "--no-dns"]
    return subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)


def _name(lab: Lab, network: str) -> str:
    ending = f"-{network}"
    return f"{lab.name[: _NAME_LENGTH - len(ending)]}{ending}"

"""Small labs for the meanwhile, beside the one that a step runs in.

As a program it makes one, `python -m … NAME NETWORK FAMILY`: several can come up at once."""

import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from types import FrameType

from ebpf_lb.errors import UserError
from ebpf_lb.lab.cluster import Lab
from ebpf_lb.lab.options import Options
from ebpf_lb.lab.state import name_option

MADE_BY = "tutorial"
_NAME_LENGTH = 32


class BesideError(UserError):
    """A lab beside this one does not come up."""


class Coming:
    """A lab that is being made."""

    def __init__(self, lab: Lab, network: str, family: str) -> None:
        self._lab = lab
        words = [sys.executable, "-m", __name__, lab.name, network, family]
        self._making = subprocess.Popen(
            words, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
        )

    def lab(self) -> Lab:
        """As soon as it is up. Raises BesideError."""
        complaint = self._making.communicate()[1].strip()
        if self._making.returncode:
            raise BesideError(f"lab {self._lab.name!r} does not come up: {complaint}")
        return self._lab

    def remove(self) -> None:
        if self._making.poll() is None:
            self._making.terminate()  # it removes what it has built
            self._making.wait()
        self._lab.down()


@contextmanager
def labs_beside(lab: Lab, networks: Sequence[str]) -> Iterator[Mapping[str, Coming]]:
    """A lab of two nodes for each network, all made at once; they are taken down at the end.

    What an interrupted run left is replaced. BesideError: somebody else has a lab of that name."""
    made = {network: Lab(_name(lab, network)) for network in networks}
    for each in made.values():
        if each.exists and each.made_by != MADE_BY:
            raise BesideError(
                f"the tutorial would make a lab {each.name!r}, and there is one that it did not "
                f"make: end that with `ebpf-lb lab down{name_option(each.name)}`"
            )
    coming: dict[str, Coming] = {}
    try:
        for network, each in made.items():
            each.down()
            coming[network] = Coming(each, network, lab.options.family)
        yield coming
    finally:
        for one in coming.values():
            one.remove()


def _name(lab: Lab, network: str) -> str:
    ending = f"-{network}"
    return f"{lab.name[: _NAME_LENGTH - len(ending)]}{ending}"


def _interrupt(_signal: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt  # what is built is removed again


def main() -> None:
    name, network, family = sys.argv[1:]
    signal.signal(signal.SIGTERM, _interrupt)
    options = Options(nodes=2, network=network, family=family, dns=False)
    try:
        Lab(name).up(options, made_by=MADE_BY)
    except UserError as error:
        sys.exit(str(error))
    except KeyboardInterrupt:
        sys.exit("interrupted")


if __name__ == "__main__":
    main()

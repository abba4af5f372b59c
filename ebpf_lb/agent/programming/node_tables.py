"""What the maps say of the node itself: interfaces, addresses, networks, settings.

They are few, and whoever writes one looks first: so to write them all again is to compare them.
"""

from collections import Counter
from collections.abc import Callable, Mapping
from typing import Protocol

from ebpf_lb.errors import UserError
from ebpf_lb.model.values import Family


class Counting(Protocol):
    """What is asked of a family's writer: how many elements it has written, by map."""

    stats: Counter[str]


class NodeTables:
    """`write`: each writes a part, as far as it is not there."""

    def __init__(self, writers: Mapping[Family, Counting], *write: Callable[[], None]) -> None:
        self._writers = writers
        self._write = write

    def mend(self) -> list[str]:
        """Sentences about what was otherwise, and what cannot be written."""
        before = {family: Counter(writer.stats) for family, writer in self._writers.items()}
        failed = []
        for write in self._write:
            try:
                write()
            except (OSError, UserError) as error:
                failed.append(str(error).rstrip("."))
        return failed + [
            f"{count} {family.directory} entries of the map {name} were not as they should be"
            for family, writer in self._writers.items()
            for name, count in sorted((writer.stats - before[family]).items())
        ]

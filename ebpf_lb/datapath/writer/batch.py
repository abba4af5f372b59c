"""Elements of many changes, written into one map by one call."""

from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

from ebpf_lb.datapath.libbpf import BatchError
from ebpf_lb.datapath.writer.change import Change
from ebpf_lb.datapath.writer.kernel_map import KernelMap


class Rows(NamedTuple):
    """What one change writes into one map: so many keys behind each other, and their values."""

    change: Change
    elements: int
    keys: bytes
    values: bytes


def write(table: KernelMap, rows: Sequence[Rows], written: Callable[[Change, int], None]) -> None:
    """Writes all rows. `written` is told of each change how many of its elements are there.

    Where the kernel refuses an element its change has failed, with nothing more of it written; the
    others go on.
    """
    left = [one for one in rows if one.elements]
    while left:
        failure: BatchError | None = None
        done = sum(one.elements for one in left)
        try:
            if len(left) == 1:
                table.update_batch(left[0].keys, left[0].values)
            else:
                keys = b"".join([one.keys for one in left])
                table.update_batch(keys, b"".join([one.values for one in left]))
        except BatchError as error:
            failure, done = error, error.done
        at = 0
        while at < len(left) and left[at].elements <= done:
            written(left[at].change, left[at].elements)
            done -= left[at].elements
            at += 1
        if failure is not None:
            failed = left[at]
            written(failed.change, done)
            failed.change.error = reason(failure)
            at += 1
        left = left[at:]


def each(changes: Iterable[Change], action: Callable[[Change], None]) -> None:
    """The same where elements are written one by one."""
    for change in changes:
        try:
            action(change)
        except OSError as error:
            change.error = reason(error)


def reason(error: OSError) -> str:
    """What the kernel said, for people."""
    return error.strerror or str(error)

"""Asking healthCheckNodePorts, as a cloud's balancer does, only quicker."""

import http.client
from collections.abc import Callable, Collection
from concurrent.futures import ThreadPoolExecutor

from ebpf_lb.lab.cloud.ways import Check

INTERVAL_S = 0.25
_TIMEOUT_S = 1.0
_AT_ONCE = 16
_SILENT_ROUNDS = 2  # so many rounds without any answer until a node is taken out


def ask(check: Check) -> bool | None:
    """Whether the node has endpoints; None where nobody answers."""
    connection = http.client.HTTPConnection(check.address, check.port, timeout=_TIMEOUT_S)
    try:
        connection.request("GET", "/")
        return connection.getresponse().status == 200
    except (OSError, http.client.HTTPException):
        return None
    finally:
        connection.close()


class Health:
    """What is known of the checks. `report` is called from other threads, all else from one."""

    def __init__(self, report: Callable[[Check, bool | None], None]):
        self._report = report
        self._workers = ThreadPoolExecutor(_AT_ONCE, thread_name_prefix="check")
        self._asking: set[Check] = set()
        self._silent: dict[Check, int] = {}
        self._healthy: set[Check] = set()

    @property
    def healthy(self) -> set[tuple[str, int]]:
        """(node, port) of those that answered 200."""
        return {(check.node, check.port) for check in self._healthy}

    def poll(self, wanted: Collection[Check]) -> None:
        """Asks everybody who is not being asked already; forgets the others."""
        self._healthy &= set(wanted)
        self._silent = {check: n for check, n in self._silent.items() if check in wanted}
        for check in sorted(set(wanted) - self._asking):
            self._asking.add(check)
            self._workers.submit(self._ask, check)

    def _ask(self, check: Check) -> None:
        self._report(check, ask(check))

    def take(self, check: Check, answer: bool | None) -> None:
        """An answer counts at once; silence only if it lasts, for one packet may be lost."""
        self._asking.discard(check)
        silent = self._silent.get(check, 0) + 1 if answer is None else 0
        self._silent[check] = silent
        if answer:
            self._healthy.add(check)
        elif answer is False or silent >= _SILENT_ROUNDS:
            self._healthy.discard(check)

"""Whether the API server is heard, and what to say when it is not: once, with a cause.

Watches fail one by one, and each tries again every few seconds. People want to know that the node
is cut off, since when and why, and when it ends; Services are served all the while as they were.
"""

from collections.abc import Callable
from typing import Any

CUT_OFF_S = 60.0
_CAUSES = 5  # of one outage, that are said as they come


class Contact:
    """`server`: its URL. `clock`: monotonic seconds. `log`: structlog's. All from one thread, but
    for what is asked."""

    def __init__(self, server: str, clock: Callable[[], float], log: Any) -> None:
        self._server = server
        self._clock = clock
        self._log = log
        self._since: dict[str, float] = {}  # by kind of object
        self._cause = ""
        self._said: set[str] = set()
        self._told = False

    def lost(self, kind: str, cause: str, silent_s: float = 0.0) -> None:
        """Objects of this kind are not followed; they have not been for so long already."""
        self._since.setdefault(kind, self._clock() - silent_s)
        self._cause = cause
        if cause not in self._said and len(self._said) < _CAUSES:
            self._said.add(cause)
            self._log.warning("the API server is not heard", server=self._server, cause=cause)

    def found(self, kind: str) -> None:
        """They are followed again."""
        since = self._since.pop(kind, None)
        if since is None or self._since:
            return
        self._log.info(
            "the API server is heard again",
            server=self._server,
            after_s=round(self._clock() - since, 1),
        )
        self._said.clear()
        self._told = False

    @property
    def cut_off_s(self) -> float:
        """For how long something has not been followed; 0 while all is."""
        began = min(list(self._since.values()), default=None)
        return 0.0 if began is None else self._clock() - began

    @property
    def problem(self) -> str:
        """A sentence once that has lasted; "" before."""
        cut_off_s = self.cut_off_s
        if cut_off_s < CUT_OFF_S:
            return ""
        return (
            f"The node is cut off from the API server {self._server} since {cut_off_s:.0f} s ago: "
            f"{self._cause}. Services are served as they were then."
        )

    def check(self) -> None:
        """Call it every second or so."""
        problem = self.problem
        if problem and not self._told:
            self._told = True
            self._log.error("cut off from the API server", problem=problem)

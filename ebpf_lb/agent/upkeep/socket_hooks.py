"""Our programs at the sockets of the node's cgroup: attached at the start, and attached again if
somebody removes a link. Of that no event tells, so it is looked at.
"""

from pathlib import Path
from typing import Any

from ebpf_lb.datapath.attach.cgroup import attach_cgroup, lost_links, remove_links
from ebpf_lb.datapath.pins import Build
from ebpf_lb.errors import UserError


class SocketHooks:
    """`links`: where they are pinned. `cgroup`: None for none, so that the node's own processes are
    served at TC. `log`: structlog's."""

    def __init__(self, build: Build, links: Path, cgroup: Path | None, log: Any) -> None:
        self._build = build
        self._links = links
        self._cgroup = cgroup
        self._log = log
        self._attached: list[str] = []
        self.restored = 0
        """How many links that somebody had removed were made again."""
        self.problem = ""
        """Why some are not; "" if all are."""

    def attach(self) -> None:
        """At the start, in the place of what an earlier build attached."""
        if self._cgroup is None:
            self._log.warning(
                "no cgroup of version 2: the node's own processes are served at TC, packet by "
                "packet"
            )
            remove_links(self._links)
            return
        self._attached = attach_cgroup(self._build, self._links, self._cgroup)
        self._log.debug("attached", cgroup=str(self._cgroup), links=self._attached)

    def check(self) -> None:
        """Call it every second or so; before `attach` it does nothing."""
        lost = lost_links(self._links, self._attached)
        if not lost or self._cgroup is None:
            self.problem = ""
            return
        try:
            back = attach_cgroup(self._build, self._links, self._cgroup)
        except (UserError, OSError) as error:
            self._complain(str(error))
            return
        again = [name for name in lost if name in back]
        if again:
            self.restored += len(again)
            self._log.warning(
                "our programs had been removed from the cgroup and are attached again",
                cgroup=str(self._cgroup),
                links=again,
            )
        if len(again) < len(lost):
            self._complain("their programs are not pinned any more.")
        else:
            self.problem = ""

    def _complain(self, reason: str) -> None:
        sentence = (
            "Links to the node's sockets were removed, and its own processes are served at TC, "
            f"packet by packet: {reason}"
        )
        if sentence != self.problem:
            self.problem = sentence
            self._log.error("sockets are not served", problem=sentence)

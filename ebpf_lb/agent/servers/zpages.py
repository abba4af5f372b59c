"""`/configz`, `/flagz` and `/statusz`, as other components of Kubernetes have them."""

import json
import platform
import re
import time
from collections.abc import Callable
from typing import Any

from ebpf_lb.agent.config import Config
from ebpf_lb.agent.config.shown import plain

_GROUP = "ebpf-lb.io"
_FOR_PEOPLE = "Warning: this page is for people; use /configz, /metrics and /status in programs."


def configz(config: Config) -> dict[str, Any]:
    """What is in force, by the keys of the configuration file."""
    return {_GROUP: plain(config)}


def flagz(config: Config) -> str:
    """The same by the names of flags, one line for each."""
    values = plain(config)
    values |= values.pop("dataPath")
    lines = [f"{_flag(key)}={json.dumps(value)}" for key, value in sorted(values.items())]
    return "\n".join(["", "ebpf-lb flagz", _FOR_PEOPLE, "", *lines, ""])


def _flag(key: str) -> str:
    return re.sub("([A-Z])", lambda match: f"-{match[1].lower()}", key)


class Statusz:
    """`clock`: monotonic seconds; `paths`: what else is served there."""

    def __init__(
        self, version: str, paths: list[str], clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._version = version
        self._paths = paths
        self._clock = clock
        self._began_s = clock()
        self._started = time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime())

    def page(self) -> str:
        lines = [
            "",
            "ebpf-lb statusz",
            _FOR_PEOPLE,
            "",
            f"Started: {self._started}",
            f"Up: {_span(self._clock() - self._began_s)}",
            f"Python version: {platform.python_version()}",
            f"Binary version: {self._version}",
            f"Paths: {' '.join(self._paths)}",
            "",
        ]
        return "\n".join(lines)


def _span(seconds: float) -> str:
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} hr {minutes:02d} min {rest:02d} sec"

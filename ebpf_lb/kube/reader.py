"""Reading one object of the API field by field.

What is impossible (an address that is none, a port out of range) is left out, item by item, and
reported in a sentence that names object and field; the rest of the object goes on. However much is
wrong with an object, a few sentences say it: objects are their owners', the log is the operator's.
"""

import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from datetime import datetime
from typing import Any, Generic, NamedTuple, TypeVar

from ebpf_lb.model.key import ObjectKey
from ebpf_lb.model.values import Network, Protocol, parse_address, parse_network

TRIGGER_TIME = "endpoints.kubernetes.io/last-change-trigger-time"

MOST_PROBLEMS = 5  # of one object that are told; the rest is counted
LONGEST_LIST = 1 << 14  # characters of a list in an annotation

Json = Mapping[str, Any]
T = TypeVar("T")


class Parsed(NamedTuple, Generic[T]):
    key: ObjectKey
    value: T | None  # None: nothing that we could use
    problems: tuple[str, ...] = ()
    triggered_s: float = 0.0  # when what led to this change happened, since 1970; 0: not said


class Reader:
    """One object: its name, and the problems found so far."""

    def __init__(self, kind: str, raw: Json) -> None:
        self.kind = kind
        self.metadata: Json = mapping_or_empty(raw.get("metadata"))
        name = self.metadata.get("name")
        namespace = self.metadata.get("namespace")
        self.key = ObjectKey(
            sys.intern(namespace) if isinstance(namespace, str) else "",
            name if isinstance(name, str) else "",
        )
        self.problems: list[str] = []
        self._untold = 0

    def done(self, value: T | None) -> Parsed[T]:
        problems = tuple(self.problems)
        if self._untold:
            problems += (f"{self.kind} {self.key}: {self._untold} more fields are ignored.",)
        return Parsed(self.key, value, problems, self._triggered_s())

    def _triggered_s(self) -> float:
        """From an annotation that the controllers of endpoints set (the network programming latency
        SLI). One that cannot be read is nobody's loss, and no news for people."""
        annotations = self.metadata.get("annotations")
        text = annotations.get(TRIGGER_TIME) if isinstance(annotations, dict) else None
        if not isinstance(text, str):
            return 0.0
        try:
            moment = datetime.fromisoformat(text)
        except ValueError:
            return 0.0
        return moment.timestamp() if moment.tzinfo else 0.0

    def refuse(self, field: str, what: object, why: str) -> None:
        if len(self.problems) >= MOST_PROBLEMS:
            self._untold += 1
            return
        text = repr(what[:100] if isinstance(what, str) else what)
        if len(text) > 100:
            text = f"{text[:100]}…"
        self.problems.append(f"{self.kind} {self.key}: {field} {text} is ignored: {why}.")

    def words(self, field: str, text: str) -> list[str]:
        """What stands between commas in an annotation; a longer list than anybody needs is refused
        as a whole, since reading it costs every node the time."""
        if len(text) > LONGEST_LIST:
            self.refuse(field, text, f"it is longer than {LONGEST_LIST} characters")
            return []
        return text.split(",")

    @property
    def labels(self) -> Json:
        return mapping_or_empty(self.metadata.get("labels"))

    def mapping(self, parent: Json, name: str, path: str) -> Json:
        """The object in a field, {} where it is absent or something else."""
        value = parent.get(name)
        if value is None or isinstance(value, dict):
            return value or {}
        self.refuse(path, value, "it is not an object")
        return {}

    def mappings(self, parent: Json, name: str, path: str) -> Iterator[tuple[str, Json]]:
        """The objects of a list, each with its path."""
        for at, value in self.listed(parent, name, path):
            if isinstance(value, dict):
                yield at, value
            else:
                self.refuse(at, value, "it is not an object")

    def listed(self, parent: Json, name: str, path: str) -> Iterator[tuple[str, Any]]:
        value = parent.get(name)
        if isinstance(value, list):
            for index, item in enumerate(value):
                yield f"{path}[{index}]", item
        elif value is not None:
            self.refuse(path, value, "it is not a list")

    def address(self, path: str, text: object) -> bytes | None:
        if isinstance(text, str):
            with suppress(ValueError):
                return parse_address(text)
        self.refuse(path, text, "it is not an IP address")
        return None

    def addresses(self, parent: Json, name: str, path: str) -> tuple[bytes, ...]:
        found = (self.address(at, text) for at, text in self.listed(parent, name, path))
        return tuple(dict.fromkeys(address for address in found if address is not None))

    def port(self, path: str, value: object, *, absent: int | None = None) -> int | None:
        """A port number; `absent` stands for null and 0, which are refused if it is None."""
        if value in (None, 0) and absent is not None and value is not False:
            return absent
        if isinstance(value, int) and not isinstance(value, bool) and 0 < value < 65536:
            return value
        self.refuse(path, value, "it is not a port number from 1 to 65535")
        return None

    def protocol(self, path: str, value: object) -> Protocol | None:
        found = _PROTOCOLS.get(value) if value is None or isinstance(value, str) else None
        if found is None:
            self.refuse(path, value, "it is not one of TCP, UDP and SCTP")
        return found

    def networks(self, items: Iterator[tuple[str, Any]]) -> tuple[Network, ...]:
        found: dict[Network, None] = {}
        for path, text in items:
            try:
                if not isinstance(text, str):
                    raise ValueError
                found[parse_network(text)] = None
            except ValueError:
                self.refuse(path, text, "it is not a network in CIDR notation")
        return tuple(found)

    def choice(self, path: str, value: object, of: Callable[[Any], T], default: T) -> T:
        """A value of an enumeration; absent and unknown ones are the default."""
        if value is None or value == "":
            return default
        try:
            return of(value)
        except ValueError:
            self.refuse(path, value, "it is unknown here")
            return default


_PROTOCOLS: dict[str | None, Protocol] = {
    None: Protocol.TCP,
    "": Protocol.TCP,
    **{protocol.name: protocol for protocol in Protocol},
}


def mapping_or_empty(value: object) -> Json:
    return value if isinstance(value, dict) else {}

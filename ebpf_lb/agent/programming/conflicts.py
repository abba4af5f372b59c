"""Services that do not get an address and port that they ask for: another has it, or the node."""

from collections.abc import Callable, Sequence
from typing import Any

from ebpf_lb.model.key import ObjectKey


class Conflicts:
    """`log`: structlog's. `report`: told once of each sentence."""

    def __init__(
        self, log: Any, report: Callable[[ObjectKey, str], None] = lambda key, sentence: None
    ) -> None:
        self._log = log
        self._report = report
        self._known: dict[ObjectKey, tuple[str, ...]] = {}

    def __len__(self) -> int:
        return len(self._known)

    def set(self, key: ObjectKey, sentences: Sequence[str]) -> None:
        """What a Service does not get, and who has it; none: it gets all that it asks for."""
        before = self._known.get(key, ())
        self.correct(key, sentences)
        for sentence in sentences:
            if sentence not in before:
                self._log.warning("conflict", service=str(key), problem=sentence)
                self._report(key, sentence)

    def correct(self, key: ObjectKey, sentences: Sequence[str]) -> None:
        """As much as before, only that another one has it now: which is not news to its owner."""
        if sentences:
            self._known[key] = tuple(sentences)
        else:
            self._known.pop(key, None)

    def sentences(self) -> list[str]:
        """All of them. Another thread may ask."""
        return sorted({sentence for known in list(self._known.values()) for sentence in known})

"""What a kind may have of its own."""

from collections.abc import Mapping, Sequence
from copy import deepcopy
from typing import Any, ClassVar

from ebpf_lb.apiserver.errors import FieldError, bad_value
from ebpf_lb.apiserver.paths import set_defaults, value
from ebpf_lb.apiserver.store import Json
from ebpf_lb.apiserver.validation import Rules, broken


class Strategy:
    """The steps of a write, in their order; a kind without needs of its own has this one. Most of
    what a kind has of its own are tables.

    The steps change `new` in place. `old` is the stored version, None for a creation.
    """

    first_status: ClassVar[Json | None] = None
    """The status of a new object, whatever its client says."""
    defaults: ClassVar[Mapping[str, Any]] = {}
    rules: ClassVar[Rules] = {}
    immutable: ClassVar[Sequence[str]] = ()

    def prepare_create(self, new: Json) -> None:
        """What a client may not set goes."""
        new.pop("status", None)
        if self.first_status is not None:
            new["status"] = deepcopy(self.first_status)

    def prepare_update(self, new: Json, old: Json) -> None:
        """What an update that leaves it out does not mean to remove is kept."""

    def default(self, new: Json, old: Json | None) -> None:
        """Fields that were left out get their values."""
        set_defaults(new, self.defaults)

    def validate(self, new: Json, old: Json | None) -> list[FieldError]:
        return broken(new, self.rules) + [
            bad_value(path, value(new, path, None), "field is immutable")
            for path in self.immutable
            if old and value(new, path) != value(old, path)
        ]

    def allocate(self, new: Json, old: Json | None) -> list[FieldError]:
        """Numbers and addresses of which there is a stock; nothing is taken before it is stored."""
        return []

    def validate_status(self, new: Json) -> list[FieldError]:
        return []

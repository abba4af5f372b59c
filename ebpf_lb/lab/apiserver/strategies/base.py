"""What a kind may have of its own."""

from ebpf_lb.lab.apiserver.errors import FieldError
from ebpf_lb.lab.apiserver.store import Json


class Strategy:
    """The steps of a write, in their order; a kind without needs of its own has this one.

    The steps change `new` in place. `old` is the stored version, None for a creation.
    """

    def prepare_create(self, new: Json) -> None:
        """What a client may not set goes."""
        new.pop("status", None)

    def prepare_update(self, new: Json, old: Json) -> None:
        """What an update that leaves it out does not mean to remove is kept."""

    def default(self, new: Json, old: Json | None) -> None:
        """Fields that were left out get their values."""

    def validate(self, new: Json, old: Json | None) -> list[FieldError]:
        return []

    def allocate(self, new: Json, old: Json | None) -> list[FieldError]:
        """Numbers and addresses of which there is a stock; nothing is taken before it is stored."""
        return []

    def validate_status(self, new: Json) -> list[FieldError]:
        return []

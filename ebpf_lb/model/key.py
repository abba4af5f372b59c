"""How objects are called."""

from typing import NamedTuple


class ObjectKey(NamedTuple):
    """An object of the API, within its kind. A tuple, since these are hashed all the time."""

    namespace: str  # "" for kinds without namespaces
    name: str

    def __str__(self) -> str:
        return f"{self.namespace}/{self.name}" if self.namespace else self.name

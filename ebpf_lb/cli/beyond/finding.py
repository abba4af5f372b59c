"""One thing that was found out."""

from typing import NamedTuple


class Finding(NamedTuple):
    """`trouble`: it stops packets, or is likely to."""

    text: str
    trouble: bool = False

"""What the compiler's process is asked for."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Self

from ebpf_lb.model.values import Family


@dataclass(frozen=True, slots=True)
class Request:
    """What to compile. `maps`, `node_maps` and `calls` are folders with a pin for every map.

    unit: its name.

    explain: a program to load with the kernel's log on standard error, where the compiler's debug
    information names the source lines; for that the maps must be the real ones, and so must the
    constants that a node fills in (`numbers`), which are marks otherwise.
    """

    unit: str
    family: Family
    sources: Path
    maps: Path
    node_maps: Path
    calls: Path
    explain: str | None = None
    numbers: Mapping[str, int] | None = None

    def to_json(self) -> str:
        return json.dumps(asdict(self), default=str)

    @classmethod
    def from_json(cls, text: str) -> Self:
        plain = json.loads(text)
        plain["family"] = Family(plain["family"])
        for name in ("sources", "maps", "node_maps", "calls"):
            plain[name] = Path(plain[name])
        return cls(**plain)

"""A configuration in plain values, by the keys of the configuration file."""

from dataclasses import fields
from enum import Enum
from typing import Any

from ebpf_lb.agent.config.keys import Config
from ebpf_lb.datapath.settings import CHOSEN_ELSEWHERE, Settings
from ebpf_lb.model.key import ObjectKey

# How a file says that there is none.
_NONE = {"cgroup": "none", "healthz_bind_address": "", "metrics_bind_address": ""}


def plain(config: Config) -> dict[str, Any]:
    """What a file could say to have it so."""
    return {in_file(name): value for name, value in _fields(config)}


def in_file(name: str) -> str:
    """A field's key."""
    if name == "settings":
        return "dataPath"
    head, *rest = name.split("_")
    return head + "".join(word.capitalize() for word in rest)


def _fields(of: Config | Settings) -> list[tuple[str, Any]]:
    found = []
    for one in fields(of):
        value = getattr(of, one.name)
        found.append((one.name, _NONE.get(one.name) if value is None else _plain(value)))
    return found


def _plain(value: Any) -> Any:
    if isinstance(value, Settings):
        # what follows from another key is not to be said
        return {in_file(name): one for name, one in _fields(value) if name not in CHOSEN_ELSEWHERE}
    if isinstance(value, ObjectKey):
        return str(value)
    if isinstance(value, tuple | list):
        if len(value) == 2 and isinstance(value[0], str) and isinstance(value[1], int):
            host, port = value
            return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        return [_plain(one) for one in value]
    if isinstance(value, Enum):
        return value.value
    if isinstance(value, bool | int | float | str):
        return value
    return str(value)

"""From what YAML, the environment or a flag gives to a total value; ValueError says what is wrong.

Each takes text or the YAML value of the kind; the sentence continues "KEY is wrong: …".
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from ebpf_lb.model.key import ObjectKey
from ebpf_lb.model.values import Network, parse_network

NODE_PORT_WORDS = ("primary", "localhost", "all")
XDP_MODES = ("off", "generic", "native", "auto")


def text(value: Any) -> str:
    if not isinstance(value, str) or not value.strip():
        raise ValueError(f"{value!r} is not a text")
    return value.strip()


def path(value: Any) -> Path:
    return Path(text(value))


def path_or_none(value: Any) -> Path | None:
    """A path, or the word `none`."""
    return None if str(value).strip().lower() == "none" else path(value)


def boolean(value: Any) -> bool:
    if isinstance(value, bool):
        return value
    known = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}
    try:
        return known[str(value).strip().lower()]
    except KeyError:
        raise ValueError(f"{value!r} is neither true nor false") from None


def whole(least: int, most: int) -> Callable[[Any], int]:
    """A whole number from `least` to `most`, both included."""

    def parse(value: Any) -> int:
        try:
            if isinstance(value, bool | float):
                raise ValueError
            number = int(value)
        except (ValueError, TypeError):
            raise ValueError(f"{value!r} is not a whole number") from None
        if not least <= number <= most:
            raise ValueError(f"{number} is not between {least} and {most}")
        return number

    return parse


def choice(*allowed: str) -> Callable[[Any], str]:
    def parse(value: Any) -> str:
        word = str(value).strip().lower()
        if word not in allowed:
            raise ValueError(f"{value!r} is not one of {', '.join(allowed)}")
        return word

    return parse


def xdp_mode(value: Any) -> str:
    """One of XDP_MODES. YAML takes a bare `off` for false."""
    return choice(*XDP_MODES)("off" if value is False else value)


def words(value: Any) -> tuple[str, ...]:
    """A list, or words with commas between them."""
    items = value.split(",") if isinstance(value, str) else value
    if not isinstance(items, list | tuple):
        raise ValueError(f"{value!r} is not a list")
    return tuple(text(item) for item in items if item != "")


def object_keys(value: Any) -> tuple[ObjectKey, ...]:
    found = []
    for word in words(value):
        namespace, slash, name = word.partition("/")
        if not (namespace and slash and name) or "/" in name:
            raise ValueError(f"{word!r} is not NAMESPACE/NAME, such as kube-system/kube-dns")
        found.append(ObjectKey(namespace, name))
    return tuple(found)


def network(value: str) -> Network:
    try:
        if "/" not in value:
            raise ValueError
        return parse_network(value)
    except ValueError:
        raise ValueError(f"{value!r} is not a CIDR such as 10.244.0.0/16") from None


def networks(value: Any) -> tuple[Network, ...]:
    return tuple(network(word) for word in words(value))


def node_port_addresses(value: Any) -> tuple[Network | str, ...]:
    """As kube-proxy's nodePortAddresses: CIDRs and NODE_PORT_WORDS, in any mixture."""
    return tuple(word if word in NODE_PORT_WORDS else network(word) for word in words(value))


def bind_address(value: Any) -> tuple[str, int] | None:
    """`host:port`, `[v6]:port`; empty: nothing is served, as in kube-proxy's configuration."""
    if value == "":
        return None
    host, colon, port = text(value).rpartition(":")
    bare = host.removeprefix("[").removesuffix("]")
    if not colon or not bare or not port.isdecimal() or (":" in bare and bare == host):
        raise ValueError(f"{value!r} is not an address and port such as 0.0.0.0:10256")
    return bare, whole(0, 65535)(port)

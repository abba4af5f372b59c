"""What values must look like: checks, and tables of them by the paths of fields."""

import ipaddress
import re
from collections.abc import Callable, Mapping
from typing import Any

from ebpf_lb.apiserver.errors import FieldError, bad_value, duplicate, required, unsupported
from ebpf_lb.apiserver.kinds import NAMESPACE, SERVICE, Kind
from ebpf_lb.apiserver.paths import find

# What is wrong with a value; the field's name is for the message.
Check = Callable[[str, Any], list[FieldError]]
Rules = Mapping[str, Check | tuple[Check, ...]]


def broken(object_: Any, rules: Rules) -> list[FieldError]:
    """All that is wrong. Fields that are left out break no rule: see `needs`."""
    return [
        error
        for path, checks in rules.items()
        for place, value in find(object_, path)
        for check in (checks if isinstance(checks, tuple) else (checks,))
        for error in check(place, value)
    ]


# --- checks, and what makes them


def that(good: Callable[[Any], bool], otherwise: str) -> Check:
    return lambda field, value: [] if good(value) else [bad_value(field, value, otherwise)]


def matching(pattern: str, longest: int, otherwise: str) -> Check:
    known = re.compile(pattern)

    def check(field: str, value: str) -> list[FieldError]:
        if len(value) > longest:
            return [bad_value(field, value, f"must be no more than {longest} characters")]
        return [] if known.fullmatch(value) else [bad_value(field, value, otherwise)]

    return check


def one_of(*choices: str) -> Check:
    return lambda field, value: [] if value in choices else [unsupported(field, value, choices)]


def between(least: int, most: int, otherwise: str) -> Check:
    return that(lambda value: least <= value <= most, otherwise)


def at_most(items: int, otherwise: str = "") -> Check:
    text = otherwise or f"must have at most {items} items"
    return lambda field, value: [bad_value(field, len(value), text)] if len(value) > items else []


def needs(*names: str, why: str = "") -> Check:
    """Fields of an object that may not be left out."""
    return lambda field, value: [
        required(f"{field}.{name}", why) for name in names if value.get(name) in (None, "", [], {})
    ]


def distinct(*names: str, at: str = "") -> Check:
    """Items of a list in which these fields together are different. at: the one to blame."""

    def check(field: str, items: list[dict[str, Any]]) -> list[FieldError]:
        errors, seen = [], []
        for index, item in enumerate(items):
            key = {name: item.get(name) for name in names}
            if None in key.values() or "" in key.values():
                continue
            if key in seen:
                place = f"{field}[{index}]"
                errors.append(duplicate(f"{place}.{at}", key[at]) if at else duplicate(place, key))
            seen.append(key)
        return errors

    return check


_LABEL = r"[a-z0-9]([-a-z0-9]*[a-z0-9])?"
_SUBDOMAIN = rf"{_LABEL}(\.{_LABEL})*"
_QUALIFIED = r"[A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?"
_MIXED = "letters, digits, '-', '_' and '.', and must start and end with a letter or digit"

dns_label = matching(
    _LABEL,
    63,
    "a lowercase RFC 1123 label must consist of a-z, 0-9 and '-', "
    "and must start and end with a letter or digit",
)
dns_subdomain = matching(
    _SUBDOMAIN,
    253,
    "a lowercase RFC 1123 subdomain must consist of a-z, 0-9, '-' "
    "and '.', and must start and end with a letter or digit",
)
# RFC 6335 as the API has it: an IANA service name.
port_name = matching(
    r"(?=.*[a-z])[a-z0-9]+(-[a-z0-9]+)*",
    15,
    "must be at most 15 characters of a-z, 0-9 and '-', contain at "
    "least one letter, and neither start nor end with '-' nor have two in a row",
)
_label_value = matching(
    rf"({_QUALIFIED})?", 63, f"a valid label must be an empty string or consist of {_MIXED}"
)
_label_name = matching(_QUALIFIED, 63, f"name part must consist of {_MIXED}")
_label_prefix = matching(_SUBDOMAIN, 253, "prefix part must be a lowercase RFC 1123 subdomain")

port_number = between(1, 65535, "must be between 1 and 65535, inclusive")
protocol = one_of("SCTP", "TCP", "UDP")
not_negative = that(lambda value: value >= 0, "must be greater than or equal to 0")


def port_reference(field: str, value: int | str) -> list[FieldError]:
    """A targetPort: a number or a container port's name."""
    return port_number(field, value) if isinstance(value, int) else port_name(field, value)


def qualified_name(field: str, value: str) -> list[FieldError]:
    prefix, slash, name = value.rpartition("/")
    return (_label_prefix(field, prefix) if slash else []) + _label_name(field, name)


def labels(field: str, values: dict[str, str]) -> list[FieldError]:
    return [
        error
        for key, value in values.items()
        for error in qualified_name(field, key) + _label_value(field, value)
    ]


def _annotations(field: str, values: dict[str, str]) -> list[FieldError]:
    return [error for key in values for error in qualified_name(field, key.lower())]


_METADATA: Rules = {"metadata.labels": labels, "metadata.annotations": _annotations}


def metadata_errors(kind: Kind, metadata: dict[str, Any]) -> list[FieldError]:
    if not metadata.get("name"):
        return [required("metadata.name", "name or generateName is required")]
    # Services: since 1.34 they may begin with a digit
    name = dns_label if kind in (NAMESPACE, SERVICE) else dns_subdomain
    return broken({"metadata": metadata}, {"metadata.name": name, **_METADATA})


# --- addresses


def ip_family(value: str) -> str | None:
    """ "IPv4" or "IPv6"; None if it is not an address."""
    try:
        return f"IPv{ipaddress.ip_address(value).version}"
    except ValueError:
        return None


ip_address = that(
    lambda value: ip_family(value) is not None,
    "must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)",
)

_NO_ENDPOINT = {
    "is_unspecified": "may not be unspecified",
    "is_loopback": "may not be in the loopback range (127.0.0.0/8, ::1/128)",
    "is_link_local": "may not be in the link-local range (169.254.0.0/16, fe80::/10)",
    "is_multicast": "may not be in the multicast range",
}


def endpoint_address(field: str, value: str) -> list[FieldError]:
    """An address that packets may be sent to: not unspecified, loopback or link-local."""
    if errors := ip_address(field, value):
        return errors
    address = ipaddress.ip_address(value)
    wrong = [text for property_, text in _NO_ENDPOINT.items() if getattr(address, property_)]
    return [bad_value(field, value, text) for text in wrong[:1]]


def _is_cidr(value: str) -> bool:
    try:
        ipaddress.ip_network(value.strip(), strict=False)
    except ValueError:
        return False
    return "/" in value


cidr = that(_is_cidr, "must be a valid CIDR value, (e.g. 10.9.8.0/24 or 2001:db8::/64)")

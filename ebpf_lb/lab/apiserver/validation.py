"""Checks that all kinds share: names, labels, ports, addresses."""

import ipaddress
import re
from typing import Any

from ebpf_lb.lab.apiserver.errors import FieldError, bad_value, required, unsupported
from ebpf_lb.lab.apiserver.kinds import NAMESPACE, SERVICE, Kind

PROTOCOLS = ("SCTP", "TCP", "UDP")

_LABEL = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?")
_SUBDOMAIN = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*")
_QUALIFIED = re.compile(r"[A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?")
_PORT_NAME = re.compile(r"(?=.*[a-z])[a-z0-9]+(-[a-z0-9]+)*")


def dns_label(field: str, value: str) -> list[FieldError]:
    """RFC 1123: a-z, 0-9 and '-', at most 63."""
    if len(value) > 63:
        return [bad_value(field, value, "must be no more than 63 characters")]
    if _LABEL.fullmatch(value):
        return []
    return [
        bad_value(
            field,
            value,
            "a lowercase RFC 1123 label must consist of a-z, 0-9 and '-', "
            "and must start and end with a letter or digit",
        )
    ]


def dns_subdomain(field: str, value: str) -> list[FieldError]:
    """RFC 1123: labels joined by '.', at most 253."""
    if len(value) > 253:
        return [bad_value(field, value, "must be no more than 253 characters")]
    if _SUBDOMAIN.fullmatch(value):
        return []
    return [
        bad_value(
            field,
            value,
            "a lowercase RFC 1123 subdomain must consist of a-z, 0-9, '-' "
            "and '.', and must start and end with a letter or digit",
        )
    ]


def metadata_errors(kind: Kind, metadata: dict[str, Any]) -> list[FieldError]:
    name = metadata.get("name", "")
    if not name:
        return [required("metadata.name", "name or generateName is required")]
    if kind in (NAMESPACE, SERVICE):  # Services: since 1.34 they may begin with a digit
        errors = dns_label("metadata.name", name)
    else:
        errors = dns_subdomain("metadata.name", name)
    errors += labels("metadata.labels", metadata.get("labels", {}))
    for key in metadata.get("annotations", {}):
        errors += qualified_name("metadata.annotations", key.lower())
    return errors


def labels(field: str, values: dict[str, str]) -> list[FieldError]:
    errors = []
    for key, value in values.items():
        errors += qualified_name(field, key)
        if len(value) > 63 or (value and not _QUALIFIED.fullmatch(value)):
            errors.append(
                bad_value(
                    field,
                    value,
                    "a valid label must be an empty string or "
                    "consist of letters, digits, '-', '_' and '.', and must start and end "
                    "with a letter or digit, at most 63 characters",
                )
            )
    return errors


def qualified_name(field: str, value: str) -> list[FieldError]:
    prefix, slash, name = value.rpartition("/")
    if slash and not _SUBDOMAIN.fullmatch(prefix):
        return [bad_value(field, value, "prefix part must be a lowercase RFC 1123 subdomain")]
    if len(name) > 63 or not _QUALIFIED.fullmatch(name):
        return [
            bad_value(
                field,
                value,
                "name part must consist of letters, digits, '-', '_' and "
                "'.', and must start and end with a letter or digit, at most 63 "
                "characters",
            )
        ]
    return []


def port_number(field: str, value: int) -> list[FieldError]:
    if 1 <= value <= 65535:
        return []
    return [bad_value(field, value, "must be between 1 and 65535, inclusive")]


def port_name(field: str, value: str) -> list[FieldError]:
    """RFC 6335 as the API has it: an IANA service name."""
    if len(value) <= 15 and _PORT_NAME.fullmatch(value):
        return []
    return [
        bad_value(
            field,
            value,
            "must be at most 15 characters of a-z, 0-9 and '-', contain at "
            "least one letter, and neither start nor end with '-' nor have two in a row",
        )
    ]


def port_reference(field: str, value: int | str) -> list[FieldError]:
    """A targetPort: a number or a container port's name."""
    return port_number(field, value) if isinstance(value, int) else port_name(field, value)


def protocol(field: str, value: str) -> list[FieldError]:
    return [] if value in PROTOCOLS else [unsupported(field, value, PROTOCOLS)]


def one_of(field: str, value: str, choices: tuple[str, ...]) -> list[FieldError]:
    return [] if value in choices else [unsupported(field, value, choices)]


def ip_family(value: str) -> str | None:
    """ "IPv4" or "IPv6"; None if it is not an address."""
    try:
        return f"IPv{ipaddress.ip_address(value).version}"
    except ValueError:
        return None


def ip_address(field: str, value: str) -> list[FieldError]:
    if ip_family(value):
        return []
    return [
        bad_value(field, value, "must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)")
    ]


def endpoint_address(field: str, value: str) -> list[FieldError]:
    """An address that packets may be sent to: not unspecified, loopback or link-local."""
    if errors := ip_address(field, value):
        return errors
    address = ipaddress.ip_address(value)
    if address.is_unspecified:
        return [bad_value(field, value, f"may not be unspecified ({value})")]
    if address.is_loopback:
        return [bad_value(field, value, "may not be in the loopback range (127.0.0.0/8, ::1/128)")]
    if address.is_link_local:
        return [
            bad_value(
                field, value, "may not be in the link-local range (169.254.0.0/16, fe80::/10)"
            )
        ]
    if address.is_multicast:
        return [bad_value(field, value, "may not be in the multicast range")]
    return []


def cidr(field: str, value: str) -> list[FieldError]:
    try:
        ipaddress.ip_network(value, strict=False)
    except ValueError:
        return [
            bad_value(
                field, value, "must be a valid CIDR value, (e.g. 10.9.8.0/24 or 2001:db8::/64)"
            )
        ]
    if "/" not in value:
        return [
            bad_value(
                field, value, "must be a valid CIDR value, (e.g. 10.9.8.0/24 or 2001:db8::/64)"
            )
        ]
    return []

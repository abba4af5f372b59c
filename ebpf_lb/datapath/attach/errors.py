"""How it is said that a program cannot be attached."""

import socket

from ebpf_lb.errors import UserError


class AttachError(UserError):
    """A program cannot be attached there."""


def interface_name(ifindex: int) -> str:
    """The name, or `interface 7` for one that has gone."""
    try:
        return socket.if_indextoname(ifindex)
    except OSError:
        return f"interface {ifindex}"


class NotYetError(AttachError):
    """Nothing is wrong: the program will be there in a while. Try again."""

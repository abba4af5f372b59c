"""Why a request came to nothing, in words that people know and that stay the same from one attempt
to the next: no object's address in memory, no number of an error.
"""

import http.client
import os
import re
import socket
import ssl

import urllib3

_CUT_SHORT = (http.client.IncompleteRead, urllib3.exceptions.InvalidChunkLength)
_OBJECT = re.compile(r"<[^<>]* object at 0x[0-9a-f]+>:? ?")
_NUMBER = re.compile(r"\[Errno -?\d+\] ?")


def because(error: BaseException) -> str:
    """The innermost reason, in one line."""
    chain = list(_chain(error))
    for inner in reversed(chain):
        if isinstance(inner, ssl.SSLCertVerificationError):
            why = inner.verify_message or "it cannot be verified"
            return f"its certificate is not accepted: {why}"
        if isinstance(inner, ssl.SSLError) and inner.reason:
            return f"no TLS connection: {inner.reason.replace('_', ' ').lower()}"
        if isinstance(inner, socket.gaierror):
            return f"its name cannot be resolved: {inner.strerror}"
        if isinstance(inner, TimeoutError) or _timed_out(inner):
            return "it does not answer"
        if isinstance(inner, _CUT_SHORT):
            return "it ended in the middle of an answer"
        if isinstance(inner, http.client.RemoteDisconnected):
            return "it closed the connection without an answer"
        if isinstance(inner, OSError) and inner.errno is not None:
            return os.strerror(inner.errno).lower()
    text = _NUMBER.sub("", _OBJECT.sub("", str(chain[-1])))
    return " ".join(text.split()) or type(chain[-1]).__name__


def _timed_out(error: BaseException) -> bool:
    # NewConnectionError is one of them only for the sake of urllib3's history
    return isinstance(error, urllib3.exceptions.ConnectTimeoutError) and not isinstance(
        error, urllib3.exceptions.NewConnectionError
    )


def _chain(error: BaseException) -> "list[BaseException]":
    """From the outermost to what led to it."""
    found: list[BaseException] = []
    following: BaseException | None = error
    while following is not None and following not in found:
        found.append(following)
        following = _inner(following)
    return found


def _inner(error: BaseException) -> BaseException | None:
    for one in (getattr(error, "reason", None), *error.args, error.__cause__, error.__context__):
        if isinstance(one, BaseException):
            return one
    return None

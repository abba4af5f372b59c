"""What people read when the API server cannot be reached."""

import errno
import http.client
import socket
import ssl

import pytest
import urllib3
from urllib3.exceptions import (
    ConnectTimeoutError,
    InvalidChunkLength,
    NameResolutionError,
    NewConnectionError,
    ProtocolError,
    ProxyError,
    SSLError,
)

from ebpf_lb.kube.causes import because


class Response:
    """As far as such an error looks at one."""

    length_remaining = 0

    def tell(self) -> int:
        return 0


CONNECTION = urllib3.connection.HTTPSConnection("192.0.2.1", 6443)


def caused(error: BaseException, cause: BaseException) -> BaseException:
    error.__cause__ = cause
    return error


def certificate(message: str) -> ssl.SSLCertVerificationError:
    error = ssl.SSLCertVerificationError(1, "[SSL: CERTIFICATE_VERIFY_FAILED] … (_ssl.c:992)")
    error.verify_message = message
    return error


def wrong_version() -> ssl.SSLError:
    error = ssl.SSLError(1, "[SSL: WRONG_VERSION_NUMBER] wrong version number (_ssl.c:992)")
    error.reason = "WRONG_VERSION_NUMBER"
    return error


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (
            caused(
                NewConnectionError(CONNECTION, "Failed to establish a new connection: …"),
                ConnectionRefusedError(errno.ECONNREFUSED, "Connection refused"),
            ),
            "connection refused",
        ),
        (
            caused(
                NewConnectionError(CONNECTION, "…"), OSError(errno.EHOSTUNREACH, "No route to host")
            ),
            "no route to host",
        ),
        (ConnectTimeoutError(CONNECTION, "Connection to … timed out."), "it does not answer"),
        (OSError(errno.ETIMEDOUT, "Connection timed out"), "it does not answer"),
        (
            caused(
                NameResolutionError("api", CONNECTION, socket.gaierror(-3, "Try again")),
                socket.gaierror(-3, "Try again"),
            ),
            "its name cannot be resolved: Try again",
        ),
        (
            SSLError(certificate("self-signed certificate")),
            "its certificate is not accepted: self-signed certificate",
        ),
        (SSLError(wrong_version()), "no TLS connection: wrong version number"),
        (
            ProtocolError("Connection aborted.", http.client.RemoteDisconnected("Remote end …")),
            "it closed the connection without an answer",
        ),
        (
            ProxyError("Cannot connect to proxy.", OSError("Tunnel failed: 403 Forbidden")),
            "Tunnel failed: 403 Forbidden",
        ),
        (
            caused(
                ProtocolError("Response ended prematurely"),
                caused(
                    InvalidChunkLength(Response(), b""),
                    ValueError("invalid literal for int() with base 16: b''"),
                ),
            ),
            "it ended in the middle of an answer",
        ),
        (ValueError(), "ValueError"),
        (RuntimeError("<Connection object at 0x7f00> was\n shut"), "was shut"),
    ],
)  # fmt: skip
def test_the_innermost_reason(error: BaseException, text: str) -> None:
    assert because(error) == text


def test_a_circle_of_causes_ends() -> None:
    one, other = ValueError("one"), ValueError("other")
    one.__cause__, other.__cause__ = other, one
    assert because(one) == "other"

"""Makes connections from where it runs and prints what became of each, as JSON: standard library
only, started in the client's network namespace. TCP, UDP, SCTP.

    connect.py '{"protocol": "TCP", "address": "10.96.0.9", "port": 80, "request": "hostname"}'

Each is an object with source_port, outcome (answered, refused, silent, unreachable, broken), text.
The source port is taken before, so that it is known of a connection that fails as well.
"""

import errno
import json
import socket
import sys
from pathlib import Path

_REFUSED = (errno.ECONNREFUSED,)
_UNREACHABLE = (errno.EHOSTUNREACH, errno.ENETUNREACH)


def attempt(
    protocol: str, address: str, port: int, request: str, timeout_s: float
) -> dict[str, object]:
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with _connection(protocol, family) as connection:
        connection.settimeout(timeout_s)
        connection.bind(("", 0))
        source_port = connection.getsockname()[1]
        try:
            connection.connect((address, port))
            ask = _ask_http if protocol == "TCP" else _ask_message
            outcome, text = "answered", ask(connection, address, request)
        except TimeoutError:
            outcome, text = "silent", ""
        except OSError as error:
            outcome, text = _outcome(error), str(error)
    return {"source_port": source_port, "outcome": outcome, "text": text}


def _connection(protocol: str, family: socket.AddressFamily) -> socket.socket:
    if protocol != "SCTP":
        return socket.socket(family, socket.SOCK_STREAM if protocol == "TCP" else socket.SOCK_DGRAM)
    try:
        return socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_SCTP)
    except OSError:  # no SCTP in this kernel
        sys.path.insert(0, str(Path(__file__).parents[3]))
        from ebpf_lb.lessons.scenarios.associate import Association

        return Association(family)


def _outcome(error: OSError) -> str:
    if error.errno in _REFUSED:
        return "refused"
    return "unreachable" if error.errno in _UNREACHABLE else "broken"


def _ask_http(connection: socket.socket, address: str, request: str) -> str:
    host = f"[{address}]" if ":" in address else address
    head = f"GET /{request} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n"
    connection.sendall(head.encode())
    answer = b""
    while data := connection.recv(65536):
        answer += data
    return answer.partition(b"\r\n\r\n")[2].decode().strip()


def _ask_message(connection: socket.socket, _address: str, request: str) -> str:
    connection.send(request.encode())
    return connection.recv(65536).decode()


def main() -> None:
    asked = json.loads(sys.argv[1])
    times = asked.pop("times")
    print(json.dumps([attempt(**asked) for _ in range(times)]))


if __name__ == "__main__":
    main()

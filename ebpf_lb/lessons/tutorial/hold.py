"""Connections that stay: `python -m … ADDRESS PORT NUMBER`, standard library only.

Opens as many, asks each who it is, and keeps those to the pod of the first. It prints that pod's
name, and ends with its standard input.
"""

import socket
import sys

_QUESTION = b"GET / HTTP/1.1\r\nHost: hostnames\r\n\r\n"


def main() -> None:
    address, port, number = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
    opened = [socket.create_connection((address, port), 10) for _ in range(number)]
    names = [_who(connection) for connection in opened]
    for connection, name in zip(opened, names, strict=True):
        if name != names[0]:
            connection.close()
    print(names[0], flush=True)
    sys.stdin.read()


def _who(connection: socket.socket) -> str:
    connection.sendall(_QUESTION)
    answer = b""
    while b"\r\n\r\n" not in answer or not answer.partition(b"\r\n\r\n")[2]:
        block = connection.recv(4096)
        if not block:
            break
        answer += block
    return answer.partition(b"\r\n\r\n")[2].decode().strip()


if __name__ == "__main__":
    main()

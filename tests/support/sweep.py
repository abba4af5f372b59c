"""Asks many destinations at once from where it runs. Standard library; JSON in, JSON out.

    sweep.py 10000 <<< '[["tcp", "10.96.0.9", 80, 21, 3.0], …]'

of [protocol, address, port, tries, seconds].
Every try has a source port of its own, counted up from the argument. Prints, for each destination,
what became of its tries: [outcome, hostname, client]. One connection asks for the pod's name and
for the client that the pod sees, so that the two belong together.

    answered    by `hostname`, who saw `client` (an address)
    refused     at once: TCP by a RST, or at connect(2) itself; UDP by ICMP, or by the system call
    icmp        TCP, and refused by ICMP
    silent      nothing came within the seconds
    other text  what else went wrong
"""

import errno
import itertools
import json
import os
import socket
import sys
from concurrent.futures import ThreadPoolExecutor

WORKERS = 48
Outcome = tuple[str, str, str]

REQUESTS = (
    b"GET /hostname HTTP/1.1\r\nHost: test\r\n\r\n"
    b"GET /clientip HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n"
)


def hear_icmp(opened: socket.socket) -> None:
    """Keeps errors that came by ICMP in a queue, which a RST does not enter."""
    if opened.family == socket.AF_INET6:
        opened.setsockopt(socket.IPPROTO_IPV6, 25, 1)  # IPV6_RECVERR
    else:
        opened.setsockopt(socket.IPPROTO_IP, 11, 1)  # IP_RECVERR


def refusal(opened: socket.socket) -> str:
    opened.setblocking(False)
    try:
        opened.recvmsg(1, 512, socket.MSG_ERRQUEUE)
    except BlockingIOError:
        return "refused"
    return "icmp"


def tcp(opened: socket.socket, address: str, port: int) -> tuple[str, str]:
    hear_icmp(opened)
    opened.connect((address, port))
    opened.sendall(REQUESTS)
    answer = b""
    while chunk := opened.recv(65536):
        answer += chunk
    name, client = (part.partition(b"\r\n\r\n")[2] for part in answer.split(b"HTTP/1.1 200 OK")[1:])
    return name.decode(), client.decode()


def udp(opened: socket.socket, address: str, port: int) -> tuple[str, str]:
    opened.connect((address, port))
    found = []
    for request in (b"hostname", b"clientip"):
        opened.send(request)
        found.append(opened.recv(65536).decode())
    return found[0], found[1]


def attempt(source_port: int, protocol: str, address: str, port: int, seconds: float) -> Outcome:
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    kind, ask = (socket.SOCK_STREAM, tcp) if protocol == "tcp" else (socket.SOCK_DGRAM, udp)
    with socket.socket(family, kind) as opened:
        opened.settimeout(seconds)
        opened.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # after an earlier run
        opened.bind(("", source_port))
        try:
            name, client = ask(opened, address, port)
        except TimeoutError:
            return "silent", "", ""
        except OSError as error:
            if error.errno == errno.ECONNREFUSED:
                return refusal(opened), "", ""
            return os.strerror(error.errno or 0), "", ""
        return "answered", name, client.rpartition(":")[0].strip("[]")


def main() -> None:
    ports = itertools.count(int(sys.argv[1]))
    asked = json.load(sys.stdin)
    with ThreadPoolExecutor(WORKERS) as pool:
        waiting = [
            [
                pool.submit(attempt, next(ports), protocol, address, port, seconds)
                for _ in range(tries)
            ]
            for protocol, address, port, tries, seconds in asked
        ]
        json.dump([[each.result() for each in tries] for tries in waiting], sys.stdout)


if __name__ == "__main__":
    main()

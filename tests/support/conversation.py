"""A conversation from a chosen source address and port: asks a lab's pod over and over, by one
connection, whom it sees as its client; prints the answers, one on each line, as they come.

    conversation.py tcp|udp SOURCE SOURCE_PORT ADDRESS PORT COUNT

So many times, or with 0 until the standard input ends.
Standard library: it is started with -I -S.
"""

import socket
import sys
import threading
import time

INTERVAL_S = 0.05


def tcp(talk: socket.socket) -> str:
    talk.sendall(b"GET /clientip HTTP/1.1\r\nHost: x\r\n\r\n")
    head, _, body = talk.recv(65536).partition(b"\r\n\r\n")
    return body.decode() if head.startswith(b"HTTP/1.1 200") else f"wrong: {head!r}"


def udp(talk: socket.socket) -> str:
    talk.send(b"clientip")
    return talk.recv(65536).decode()


def main(protocol: str, source: str, source_port: str, address: str, port: str, count: str) -> None:
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    kind = socket.SOCK_STREAM if protocol == "tcp" else socket.SOCK_DGRAM
    with socket.socket(family, kind) as talk:
        talk.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        talk.settimeout(20)
        talk.bind((source, int(source_port)))
        talk.connect((address, int(port)))
        over = threading.Event()
        if count == "0":
            threading.Thread(target=lambda: (sys.stdin.read(), over.set()), daemon=True).start()
        asked = 0
        while asked < int(count) if int(count) else not over.is_set():
            print({"tcp": tcp, "udp": udp}[protocol](talk), flush=True)
            asked += 1
            time.sleep(INTERVAL_S)


if __name__ == "__main__":
    main(*sys.argv[1:])

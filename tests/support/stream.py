"""A long TCP stream and its checksum, and datagrams without end. Standard library.

stream.py serve PORT               prints "ready"; reads each connection to its end and answers
                                   `BYTES SHA256`
stream.py send ADDRESS PORT N      sends N bytes, never the same block twice, as fast as it can, or
                                   with 0 a block now and then until the standard input ends;
                                   prints `BYTES SECONDS`; exits with 0 if the server has received
                                   just those
stream.py mirror PORT              prints "ready"; sends every byte and every datagram back
stream.py both ADDRESS PORT N      as `send`, but all of it must come back while it is sent; with 0
                                   bytes, slowly, until the standard input ends
stream.py ask ADDRESS PORT N SIZE… sends N datagrams of SIZE bytes, of several sizes by turns, each
                                   as soon as the one before came back; exits with 0 if all did, at
                                   the first try. They are all different, and those of one size have
                                   one UDP checksum
"""

import hashlib
import os
import socket
import sys
import threading
import time

BLOCK_BYTES, SLOW_BYTES = 1 << 20, 1 << 14
PAUSE_S = 0.01


def answer(connection: socket.socket) -> None:
    with connection:
        digest, count = hashlib.sha256(), 0
        buffer = memoryview(bytearray(BLOCK_BYTES))
        while received := connection.recv_into(buffer):
            digest.update(buffer[:received])
            count += received
        connection.sendall(f"{count} {digest.hexdigest()}\n".encode())


def serve(port: int) -> None:
    with socket.create_server(("::", port), family=socket.AF_INET6, dualstack_ipv6=True) as server:
        print("ready", flush=True)
        while True:
            connection, _ = server.accept()
            threading.Thread(target=answer, args=(connection,), daemon=True).start()


def mirror(port: int) -> None:
    with (
        socket.create_server(("::", port), family=socket.AF_INET6, dualstack_ipv6=True) as server,
        socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as datagrams,
    ):
        datagrams.bind(("::", port))
        threading.Thread(target=mirror_datagrams, args=(datagrams,), daemon=True).start()
        print("ready", flush=True)
        while True:
            connection, _ = server.accept()
            threading.Thread(target=mirror_stream, args=(connection,), daemon=True).start()


def mirror_stream(connection: socket.socket) -> None:
    with connection:
        buffer = memoryview(bytearray(BLOCK_BYTES))
        while received := connection.recv_into(buffer):
            connection.sendall(buffer[:received])


def mirror_datagrams(opened: socket.socket) -> None:
    while True:
        data, sender = opened.recvfrom(1 << 16)
        opened.sendto(data, sender)


def until_input_ends() -> threading.Event:
    """Set when the standard input has ended."""
    over = threading.Event()
    threading.Thread(target=lambda: (sys.stdin.read(), over.set()), daemon=True).start()
    return over


def both(address: str, port: int, total: int) -> None:
    began = time.monotonic()
    returned = hashlib.sha256()
    over = until_input_ends() if not total else threading.Event()

    def receive(connection: socket.socket) -> None:
        while chunk := connection.recv(BLOCK_BYTES):
            returned.update(chunk)

    digest, sent = hashlib.sha256(), 0
    block = bytearray(os.urandom(BLOCK_BYTES))
    with socket.create_connection((address, port), timeout=10) as connection:
        connection.settimeout(60)
        receiving = threading.Thread(target=receive, args=(connection,))
        receiving.start()
        while sent < total if total else not over.wait(PAUSE_S):
            block[:8] = sent.to_bytes(8)
            piece = memoryview(block)[: min(BLOCK_BYTES, total - sent) if total else SLOW_BYTES]
            connection.sendall(piece)
            digest.update(piece)
            sent += len(piece)
        connection.shutdown(socket.SHUT_WR)
        receiving.join()
    if returned.digest() != digest.digest():
        sys.exit(f"what came back of {sent} bytes is not what was sent")
    print(sent, f"{time.monotonic() - began:.2f}", flush=True)


def sum_16(data: bytes) -> int:
    """As of RFC 1071, of an even number of bytes: such a sum is the remainder by 65,535."""
    return int.from_bytes(data) % 0xFFFF


def ask(address: str, port: int, count: int, *sizes: int) -> None:
    began = time.monotonic()
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with socket.socket(family, socket.SOCK_DGRAM) as opened:
        opened.connect((address, port))
        opened.settimeout(20)
        for number in range(count):
            data = number.to_bytes(8) + os.urandom(sizes[number % len(sizes)] - 10)
            data += (-sum_16(data) % 0xFFFF).to_bytes(2)
            opened.send(data)
            if opened.recv(1 << 16) != data:
                sys.exit(f"datagram {number} came back as another")
    print(count, f"{time.monotonic() - began:.2f}", flush=True)


def send(address: str, port: int, total: int) -> None:
    began = time.monotonic()
    digest = hashlib.sha256()
    block = bytearray(os.urandom(BLOCK_BYTES))
    with socket.create_connection((address, port), timeout=10) as connection:
        connection.settimeout(60)
        sent = 0
        over = until_input_ends() if not total else threading.Event()
        while sent < total if total else not over.wait(PAUSE_S):
            block[:8] = sent.to_bytes(8)
            piece = memoryview(block)[: min(BLOCK_BYTES, total - sent) if total else BLOCK_BYTES]
            connection.sendall(piece)
            digest.update(piece)
            sent += len(piece)
        connection.shutdown(socket.SHUT_WR)
        answered = b""
        while chunk := connection.recv(4096):
            answered += chunk
    expected = f"{sent} {digest.hexdigest()}"
    if answered.decode().strip() != expected:
        sys.exit(f"sent {expected}, received {answered.decode().strip()}")
    print(sent, f"{time.monotonic() - began:.2f}", flush=True)


if __name__ == "__main__":
    command, *words = sys.argv[1:]
    match command:
        case "serve":
            serve(int(words[0]))
        case "mirror":
            mirror(int(words[0]))
        case "ask":
            ask(words[0], *map(int, words[1:]))
        case _:
            exchange = {"send": send, "both": both}[command]
            exchange(words[0], int(words[1]), int(words[2]))

"""A long TCP stream and its checksum. Standard library.

stream.py serve PORT               prints "ready"; reads each connection to its end and answers
                                   `BYTES SHA256`
stream.py send ADDRESS PORT N [S]  sends N bytes, never the same block twice, evenly over S seconds
                                   (without S as fast as it can); prints `BYTES SECONDS`; exits
                                   with 0 if the server has received just those
"""

import hashlib
import os
import socket
import sys
import threading
import time

BLOCK_BYTES = 1 << 20


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


def send(address: str, port: int, total: int, seconds: float = 0.0) -> None:
    began = time.monotonic()
    digest = hashlib.sha256()
    block = bytearray(os.urandom(BLOCK_BYTES))
    with socket.create_connection((address, port), timeout=10) as connection:
        connection.settimeout(60)
        sent = 0
        while sent < total:
            block[:8] = sent.to_bytes(8)
            piece = memoryview(block)[: min(BLOCK_BYTES, total - sent)]
            connection.sendall(piece)
            digest.update(piece)
            sent += len(piece)
            time.sleep(max(0.0, began + seconds * sent / total - time.monotonic()))
        connection.shutdown(socket.SHUT_WR)
        answered = b""
        while chunk := connection.recv(4096):
            answered += chunk
    expected = f"{sent} {digest.hexdigest()}"
    if answered.decode().strip() != expected:
        sys.exit(f"sent {expected}, received {answered.decode().strip()}")
    print(sent, f"{time.monotonic() - began:.2f}", flush=True)


if __name__ == "__main__":
    if sys.argv[1] == "serve":
        serve(int(sys.argv[2]))
    else:
        send(sys.argv[2], int(sys.argv[3]), int(sys.argv[4]), *map(float, sys.argv[5:]))

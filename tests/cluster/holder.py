"""Holds connections, and opens new ones all the time.

    holder.py '[pod, EACH, [[address, port], …]]'

`pod`: the address of a pod of this node, whose network it enters; "": the node's own. A line on
standard input: what was seen since the last one, as JSON.
"""

import ctypes
import json
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

CLONE_NEWNET = 0x40000000
ASK = b"GET /hostname HTTP/1.1\r\nHost: x\r\n\r\n"


def enter(address: str) -> None:
    """The network of the pod that has it."""
    for place in Path("/run/netns").iterdir():
        shown = subprocess.run(
            ["ip", "-n", place.name, "-o", "addr"], capture_output=True, text=True, check=False
        )
        if f" {address}/" in shown.stdout:
            with place.open() as file:
                assert ctypes.CDLL(None).setns(file.fileno(), CLONE_NEWNET) == 0
            return
    raise SystemExit(f"no pod here has {address}")


class Holder:
    def __init__(self, each: int, targets: list[tuple[str, int]]) -> None:
        self.targets = targets
        self.lock = threading.Lock()
        self.held: dict[str, socket.socket] = {}
        self.ports: dict[int, list[str]] = {}  # of new connections -> when and whither
        for target in targets:
            for _ in range(each):
                made = self.open(target)
                self.held[f"{target[0]}:{target[1]} from port {made.getsockname()[1]}"] = made
        self.clear()

    def clear(self) -> None:
        self.asked = self.opened = 0
        self.lost: list[str] = []
        self.refused: list[str] = []

    def open(self, target: tuple[str, int]) -> socket.socket:
        return socket.create_connection(tuple(target), 10)

    @staticmethod
    def ask(connection: socket.socket) -> None:
        connection.settimeout(10)
        connection.sendall(ASK)
        answer = connection.recv(4096)
        if not answer.startswith(b"HTTP/1.1 200 "):
            raise OSError(f"it answers {answer!r}")

    def run(self) -> None:
        while True:
            with self.lock:
                for name, connection in list(self.held.items()):
                    try:
                        self.ask(connection)
                        self.asked += 1
                    except OSError as error:
                        port = int(name.split()[-1])
                        others = self.ports.get(port, "no other connection")
                        self.lost.append(f"{name}: {error}; from that port: {others}")
                        del self.held[name]
                for target in self.targets:
                    try:
                        with self.open(target) as connection:
                            port = connection.getsockname()[1]
                            when = f"{time.time():.1f} {target[0]}:{target[1]}"
                            self.ports.setdefault(port, []).append(when)
                            self.ask(connection)
                        self.opened += 1
                    except OSError as error:
                        self.refused.append(f"{target}: {error}")
            time.sleep(0.5)

    def report(self) -> str:
        with self.lock:
            found = {
                "held": len(self.held),
                "asked": self.asked,
                "opened": self.opened,
                "lost": self.lost,
                "refused": self.refused,
            }
            self.clear()
        return json.dumps(found)


pod, each, targets = json.loads(sys.argv[1])
if pod:
    enter(pod)
holder = Holder(each, targets)
threading.Thread(target=holder.run, daemon=True).start()
for _ in sys.stdin:
    print(holder.report(), flush=True)

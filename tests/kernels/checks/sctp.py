"""SCTP by the kernel's own sockets, through every hook: associations, data, ports, aborts.

    run.sh KERNEL python -m tests.kernels.checks.sctp [WAY...]

A lab for each way: by the stack, past it, by XDP. In each a pod and a process of the node ask a
ClusterIP, and a machine outside a NodePort; the port changes each time, and for those outside the
source too; backends on this node and on another; both families. An association is opened, asked,
given 256 KiB each way (in large packets that the kernel cuts late: it says how many were seen),
ended, opened again from the same port, and aborted by either end. One line a question that is not
answered as it should be.
"""

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ebpf_lb.lab import building
from ebpf_lb.lab.cluster import Lab
from ebpf_lb.lab.options import Options
from ebpf_lb.lab.services import NotServingError
from tests.kernels.checks.uplinks import UNDERLAY
from tests.lab.conftest import Room, room_in
from tests.support.manifests import cluster_ip, deployment

WAYS = {
    "stack": {},
    "past": {"host_routing": "bpf", "pods": "ptp"},
    "native": {"xdp": "native"},
    "generic": {"xdp": "generic"},
}
TARGET_PORT, PORT = 9899, 81
NODE_PORTS = {"near": 31721, "far": 31722}
NUMBERS = {"near": 21, "far": 22}
NODES = {"near": "node1", "far": "node2"}
FAMILIES = ("ipv4", "ipv6")
PATIENCE_S = 1200

# One-to-one style. Standard library: it is started with -I -S. The first message says what is
# wanted: "echo", "abort", or "end N" (says how the association N ended, asked by another one).
SERVER = """
import socket, struct, sys, threading
ends = {}
def serve(one):
    one.settimeout(60)
    word, _, name = one.recv(65536).decode().partition(" ")
    if word == "end":
        one.send(ends.get(name, "it goes on").encode())
    elif word == "abort":
        one.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    elif word == "echo":
        one.send(b"ready")
        try:
            while got := one.recv(65536):
                one.send(got)
            ends[name] = "shut down"
        except ConnectionError as error:
            ends[name] = type(error).__name__
    one.close()
listeners = socket.socket(socket.AF_INET6, socket.SOCK_STREAM, 132)
listeners.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
listeners.bind(("::", int(sys.argv[1])))
listeners.listen(64)
print("listening", flush=True)
while True:
    threading.Thread(target=serve, args=(listeners.accept()[0],), daemon=True).start()
"""

# Arguments: address, port, port of its own. Prints a line for each thing that is not as it should.
CLIENT = """
import socket, struct, sys, time
address, port, own = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
family = socket.AF_INET6 if ":" in address else socket.AF_INET
def opened(word, source=0):
    one = socket.socket(family, socket.SOCK_STREAM, 132)
    one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    one.settimeout(25)
    one.bind(("", source))
    one.connect((address, port))
    one.send(word.encode())
    return one
def wanted(what, got, right):
    if got != right:
        print(f"{what}: {got!r}, not {right!r}", flush=True)
def attempt(what, work):
    try:
        work()
    except OSError as error:
        print(f"{what}: {error!r}", flush=True)
def exchanged(one, size, times):
    piece, back = bytes(range(256)) * (size // 256), b""
    for _ in range(times):
        one.send(piece)
        while len(back) < size:
            got = one.recv(65536)
            if not got:
                return "ended"
            back += got
        if back != piece:
            return "other bytes"
        back = b""
    return "whole"
def again_and_again():
    for number in range(3):
        with opened(f"echo {own}-{number}", own) as one:
            wanted("an answer", one.recv(100), b"ready")
            wanted("small pieces", exchanged(one, 256, 5), "whole")
        time.sleep(0.3)
def bulk():
    with opened(f"echo {own}-bulk") as one:
        wanted("an answer", one.recv(100), b"ready")
        wanted("large pieces", exchanged(one, 32768, 8), "whole")
def ended(name):
    with opened(f"end {name}") as one:
        return one.recv(100).decode()
def aborted_here():
    with opened(f"echo {own}-abort") as one:
        wanted("an answer", one.recv(100), b"ready")
        one.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    time.sleep(0.3)
    wanted("the other end of an abort", ended(f"{own}-abort"), "ConnectionResetError")
    wanted("the other end of an end", ended(f"{own}-bulk"), "shut down")
def aborted_there():
    with opened("abort", own + 1) as one:
        try:
            got = one.recv(100)
        except ConnectionResetError:
            got = "reset"
        wanted("this end of an abort", got, "reset")
    with opened(f"echo {own}-after", own + 1) as one:
        wanted("an answer after an abort", one.recv(100), b"ready")
for work in (again_and_again, bulk, aborted_here, aborted_there):
    attempt(work.__name__, work)
"""


def python(script: str, *words: object) -> list[str]:
    return [sys.executable, "-I", "-S", "-c", script, *map(str, words)]


def service_of(name: str) -> dict:
    addresses = [cluster_ip(NUMBERS[name], family) for family in FAMILIES]
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": name},
        "spec": {
            "type": "NodePort",
            "selector": {"app": name},
            "clusterIP": addresses[0],
            "clusterIPs": addresses,
            "ipFamilyPolicy": "RequireDualStack",
            "ports": [
                {"name": "sctp", "protocol": "SCTP", "port": PORT, "targetPort": TARGET_PORT,
                 "nodePort": NODE_PORTS[name]}
            ],
        },
    }  # fmt: skip


@contextmanager
def lab_up(**options: object) -> Iterator[Room]:
    lab = Lab("sctp")
    lab.down()
    servers = []
    try:
        try:
            lab.up(Options(nodes=2, dns=False, **options), progress=lambda *_: None)
        except NotServingError:  # a guest is slow, above all on a busy machine
            if not lab.running:
                raise
            _wait_longer(lab)
        with tempfile.TemporaryDirectory() as folder:
            for room in room_in(lab, Path(folder)):
                room.apply(
                    deployment("asker", node="node1"),
                    *(deployment(name, node=node) for name, node in NODES.items()),
                    *map(service_of, NODES),
                )
                for name in NODES:
                    server = lab.popen(
                        room.pod(name), python(SERVER, TARGET_PORT), stdout=subprocess.PIPE
                    )
                    servers.append(server)
                    assert server.stdout is not None and server.stdout.readline()
                yield room
    finally:
        for server in servers:
            server.kill()
        lab.down()


def _wait_longer(lab: Lab) -> None:
    end = time.monotonic() + PATIENCE_S
    while True:
        try:
            return lab.wait_for_agents()
        except NotServingError:
            if time.monotonic() > end:
                raise


class Large:
    """Counts SCTP packets that are larger than any wire takes, where the asking pod sends them."""

    def __init__(self, room: Room) -> None:
        argv = ["tcpdump", "-lnqi", "any", "greater", "2000", "and", "(", "sctp", "or", "ip6[6]",
                "=", "132", ")"]  # fmt: skip
        self._process = room.lab.popen(
            room.pod("asker"), argv, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
        )

    def end(self) -> int:
        self._process.terminate()
        said, _ = self._process.communicate()
        return len(said.splitlines())


def counted(lab: Lab) -> dict[str, int]:
    dump = lab.exec("node1", ["ebpf-lb", "maps", "dump", "counters", "-o", "json"], check=True)
    found: dict[str, int] = {}
    dumped = json.loads(dump.stdout)
    for family in FAMILIES:
        for row in dumped[family]["counters"]:
            found[row["reason"]] = found.get(row["reason"], 0) + int(row["packets"])
    return found


def asked(way: str) -> bool:
    started = time.monotonic()
    wrong = questions = 0
    with lab_up(**WAYS[way]) as room:
        lab = room.lab
        large, before = Large(room), counted(lab)
        own = 40000
        for number, family in enumerate(FAMILIES):
            node = UNDERLAY["node1"][number]
            for name in NODES:
                for source, to, port in (
                    (room.pod("asker"), cluster_ip(NUMBERS[name], family), PORT),
                    ("node1", cluster_ip(NUMBERS[name], family), PORT),
                    ("client", node, NODE_PORTS[name]),
                ):
                    own += 10
                    questions += 1
                    done = lab.exec(source, python(CLIENT, to, port, own), timeout=600)
                    for line in (done.stdout + done.stderr[-500:]).splitlines():
                        print(f"    FAILED {source} to {name}, {family}: {line}", flush=True)
                    wrong += bool(done.stdout or done.returncode)
        grown = {name: now - before.get(name, 0) for name, now in counted(lab).items()}
        seen = large.end()
        log = lab.log("agent-node1").read_text()
    if folder := os.environ.get("OUT"):
        Path(folder, f"sctp-{way}.log").write_text(log)
    print(
        f"{way}: {questions - wrong} of {questions} as they should be, {seen} large packets,"
        f" {time.monotonic() - started:.0f} s; { ({k: n for k, n in grown.items() if n}) }",
        flush=True,
    )
    return not wrong


def main(wanted: list[str]) -> int:
    subprocess.run(["modprobe", "-a", "br_netfilter", "sctp"], check=True)
    if unknown := set(wanted) - WAYS.keys():
        print(f"no such way: {unknown}; there are {', '.join(WAYS)}")
        return 2
    building._API_WITHIN_S = PATIENCE_S
    right = [asked(way) for way in wanted or WAYS]
    return 0 if all(right) else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

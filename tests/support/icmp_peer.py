"""What hosts hear by ICMP about their datagrams. Standard library: it is started with -I -S.

    icmp_peer.py serve PORT                 prints "ready"; answers each datagram, a JSON object
                                            {"ttl": N}, with that hop limit (0: the system's) when
                                            there is a line of input, waits for an error about the
                                            answer and prints it, or null
    icmp_peer.py ask ADDRESS PORT TTL…      a datagram with each of these hop limits by one socket,
                                            connected: prints for each "answered", null (silence)
                                            or the error
    icmp_peer.py short ADDRESS PORT TTL     asks a server for an answer with that hop limit; prints
                                            what has come when its input ends
    icmp_peer.py hang-up ADDRESS PORT       a datagram, and closes the socket; prints its own name

An error is {"what": "unreachable" | "expired" | "too big", "to": whom the datagram was for}, as the
kernel found it by the datagram that the error quotes; by another tuple it would find no socket.
"""

import json
import select
import socket
import struct
import sys

ERRORS = {
    (2, 3): "unreachable", (2, 11): "expired",
    (3, 1): "unreachable", (3, 3): "expired", (3, 2): "too big",
}  # fmt: skip
TIMEOUT_S = 5.0


def opened(family: int) -> socket.socket:
    """A UDP socket that keeps errors (IP_RECVERR, IPV6_RECVERR) in a queue."""
    made = socket.socket(family, socket.SOCK_DGRAM)
    level, option = (
        (socket.IPPROTO_IPV6, 25) if family == socket.AF_INET6 else (socket.IPPROTO_IP, 11)
    )
    made.setsockopt(level, option, 1)
    return made


def set_ttl(one: socket.socket, ttl: int) -> None:
    if one.family == socket.AF_INET6:
        one.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_UNICAST_HOPS, ttl or -1)
    else:
        one.setsockopt(socket.IPPROTO_IP, socket.IP_TTL, ttl or 64)


def error(one: socket.socket) -> "dict[str, str] | None":
    """What is in the queue: struct sock_extended_err."""
    try:
        _, controls, _, to = one.recvmsg(2048, 512, socket.MSG_ERRQUEUE | socket.MSG_DONTWAIT)
    except BlockingIOError:
        return None
    for _, _, data in controls:
        _, origin, kind, code = struct.unpack_from("=IBBB", data)
        what = "too big" if (origin, kind, code) == (2, 3, 4) else ERRORS.get((origin, kind), "")
        return {"what": what or f"origin {origin} type {kind}", "to": to[0]}
    return None


def heard(one: socket.socket, seconds: float) -> "dict[str, str] | None":
    """The next error, if one comes in time."""
    poll = select.poll()
    poll.register(one, select.POLLERR)
    poll.poll(seconds * 1000)
    return error(one)


def serve(port: int) -> None:
    sockets = []
    for family, nobody in ((socket.AF_INET, "0.0.0.0"), (socket.AF_INET6, "::")):
        one = opened(family)
        if family == socket.AF_INET6:
            one.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        one.bind((nobody, port))
        sockets.append(one)
    print("ready", flush=True)
    while True:
        for one in select.select(sockets, [], [])[0]:
            try:
                request, peer = one.recvfrom(2048)
            except OSError:
                continue  # an error of before
            asked = json.loads(request)
            sys.stdin.readline()
            set_ttl(one, asked["ttl"])
            one.sendto(b"answer", peer)
            told = heard(one, TIMEOUT_S)
            if told is not None:
                told["peer"] = peer[0]
            print(json.dumps(told), flush=True)


def ask(address: str, port: str, *ttls: str) -> list[object]:
    found: list[object] = []
    for ttl in map(int, ttls):
        with opened(socket.AF_INET6 if ":" in address else socket.AF_INET) as one:
            one.connect((address, int(port)))
            set_ttl(one, ttl)
            one.send(b"hostname")
            one.settimeout(TIMEOUT_S)
            try:
                one.recv(2048)
                found.append("answered")
            except TimeoutError:
                found.append(None)
            except OSError:
                found.append(error(one))
    return found


def hang_up(address: str, port: str) -> str:
    with opened(socket.AF_INET6 if ":" in address else socket.AF_INET) as one:
        one.connect((address, int(port)))
        one.send(json.dumps({"ttl": 0}).encode())
        return str(one.getsockname()[0])


def short(address: str, port: str, ttl: str) -> str:
    """A datagram whose answer is to have this hop limit; what came meanwhile."""
    with opened(socket.AF_INET6 if ":" in address else socket.AF_INET) as one:
        one.connect((address, int(port)))
        one.send(json.dumps({"ttl": int(ttl)}).encode())
        sys.stdin.read()
        try:
            return one.recv(2048, socket.MSG_DONTWAIT).decode()
        except BlockingIOError:
            return ""


if __name__ == "__main__":
    command, *words = sys.argv[1:]
    if command == "serve":
        serve(int(words[0]))
    else:
        work = {"ask": ask, "hang-up": hang_up, "short": short}[command]
        json.dump(work(*words), sys.stdout)

"""Traffic of a chosen size, from where it runs, to a lab's pod; prints what came of it, as JSON.

    bulk.py datagrams ADDRESS PORT SIZE discover|fragment   what became of each of five
    bulk.py upload ADDRESS PORT BYTES                       bytes, seconds, segment sizes
    bulk.py download ADDRESS PORT BYTES                     bytes, seconds
    bulk.py fetch ADDRESS PORT SIZE                         what became of five answers
    bulk.py answer PORT                                     serves fetch, without DF

Standard library: it is started with -I -S.
"""

import errno
import json
import socket
import sys
import time

IP_MTU_DISCOVER, IPV6_MTU_DISCOVER = 10, 23
PMTUDISC_DONT, PMTUDISC_WANT = 0, 1
TIMEOUT_S = 30.0


def datagrams(address: str, port: str, size: str, mode: str) -> list[str]:
    """Each is answered (echoed), told (an ICMP error says that it is too big), silent or wrong.
    With `fragment` the sender leaves DF away, so that routers may fragment."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    level, option = (
        (socket.IPPROTO_IPV6, IPV6_MTU_DISCOVER)
        if family == socket.AF_INET6
        else (socket.IPPROTO_IP, IP_MTU_DISCOVER)
    )
    outcomes = []
    with socket.socket(family, socket.SOCK_DGRAM) as peer:
        peer.setsockopt(level, option, PMTUDISC_DONT if mode == "fragment" else PMTUDISC_WANT)
        peer.settimeout(5)
        peer.connect((address, int(port)))
        for number in range(5):
            text = f"{number:05d}".encode().ljust(int(size) - 5, b".")
            try:
                peer.send(b"echo " + text)
                outcomes.append("answered" if peer.recv(65536) == text else "wrong")
            except TimeoutError:
                outcomes.append("silent")
            except OSError as error:
                if error.errno != errno.EMSGSIZE:
                    raise
                outcomes.append("told")
    return outcomes


def answer(port: str) -> None:
    """Sends as many bytes as it is asked for, over IPv4 without DF, until it is ended."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as own:
        own.setsockopt(socket.IPPROTO_IP, IP_MTU_DISCOVER, PMTUDISC_DONT)
        own.bind(("", int(port)))
        while True:
            size, asker = own.recvfrom(100)
            own.sendto(size.ljust(int(size), b"."), asker)


def fetch(address: str, port: str, size: str) -> list[str]:
    """Each is answered, silent or wrong."""
    outcomes = []
    for _ in range(5):
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as own:
            own.settimeout(5)
            own.connect((address, int(port)))
            own.send(size.encode())
            try:
                right = own.recv(65536) == size.encode().ljust(int(size), b".")
                outcomes.append("answered" if right else "wrong")
            except (TimeoutError, ConnectionError):
                outcomes.append("silent")
    return outcomes


def upload(address: str, port: str, count: str) -> dict[str, float]:
    began = time.monotonic()
    with socket.create_connection((address, int(port)), TIMEOUT_S) as peer:
        said = peer.getsockopt(socket.IPPROTO_TCP, socket.TCP_MAXSEG)
        head = f"POST /sink HTTP/1.1\r\nHost: x\r\nContent-Length: {count}\r\n\r\n"
        peer.sendall(head.encode() + bytes(int(count)))
        answer = peer.recv(65536).partition(b"\r\n\r\n")[2]
        used = peer.getsockopt(socket.IPPROTO_TCP, socket.TCP_MAXSEG)
    seconds = time.monotonic() - began
    got = json.loads(answer)["bytes"]
    return {"bytes": got, "seconds": seconds, "mss_said": said, "mss_used": used}


def download(address: str, port: str, count: str) -> dict[str, float]:
    began = time.monotonic()
    with socket.create_connection((address, int(port)), TIMEOUT_S) as peer:
        head = f"GET /source?bytes={count} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
        peer.sendall(head.encode())
        answer = b""
        while chunk := peer.recv(1 << 20):
            answer += chunk
    body = answer.partition(b"\r\n\r\n")[2]
    return {"bytes": len(body), "seconds": time.monotonic() - began}


if __name__ == "__main__":
    works = (datagrams, upload, download, fetch, answer)
    [work] = [work for work in works if work.__name__ == sys.argv[1]]
    json.dump(work(*sys.argv[2:]), sys.stdout)

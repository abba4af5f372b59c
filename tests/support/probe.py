"""Makes connections from where it runs and prints what became of each, as JSON. Standard library.

    probe.py '{"protocol": "tcp", "address": "10.96.0.9", "port": 80, "tries": 30}'

One process for all tries: the checker starts it in the source's network namespace. A request is
what the well-known test images answer: HTTP `GET /REQUEST`, the datagram `REQUEST`, or for SCTP an
INIT by a raw socket, since few kernels have SCTP sockets. Each try gives an object:

    outcome   answered | refused | silent (nothing within timeout_s) | unreachable | broken
    text      the answer; for SCTP the state cookie as text
    sender    address:port that the answer came from, as this socket sees it
    seconds   from the first packet to the outcome
"""

import errno
import json
import os
import socket
import struct
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass

REFUSED = (errno.ECONNREFUSED,)
UNREACHABLE = (errno.EHOSTUNREACH, errno.ENETUNREACH, errno.EACCES, errno.EPERM)
BROKEN = (errno.ECONNRESET, errno.EPIPE)
SCTP = 132
INIT, INIT_ACK, ABORT = 1, 2, 6
STATE_COOKIE = 7


@dataclass(frozen=True)
class Ask:
    """What to do. Give `source_port` to use one port for all tries (then one after the other)."""

    protocol: str
    address: str
    port: int
    tries: int = 1
    request: str = "hostname"
    timeout_s: float = 1.0
    connected: bool = True  # UDP: connect() and send(), else sendto() and recvfrom()
    source_port: int = 0
    parallel: int = 8

    @property
    def family(self) -> socket.AddressFamily:
        return socket.AF_INET6 if ":" in self.address else socket.AF_INET


@dataclass(frozen=True)
class Answer:
    outcome: str
    text: str = ""
    sender: str = ""
    seconds: float = 0.0


def sender_text(name: tuple[str, int] | tuple[str, int, int, int]) -> str:
    return f"[{name[0]}]:{name[1]}" if ":" in name[0] else f"{name[0]}:{name[1]}"


def tcp(ask: Ask) -> Answer:
    with socket.socket(ask.family, socket.SOCK_STREAM) as connection:
        connection.settimeout(ask.timeout_s)
        if ask.source_port:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            connection.bind(("", ask.source_port))
            # no TIME_WAIT: the next try uses the same port
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        connection.connect((ask.address, ask.port))
        host = f"[{ask.address}]" if ":" in ask.address else ask.address
        request = f"GET /{ask.request} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n"
        connection.sendall(request.encode())
        answer = b""
        while chunk := connection.recv(65536):
            answer += chunk
        head, _, body = answer.partition(b"\r\n\r\n")
        status = head.split(b" ", 2)
        if len(status) < 2 or status[1] != b"200":
            return Answer("broken", head.decode(errors="replace"))
        return Answer("answered", body.decode().strip(), sender_text(connection.getpeername()))


def udp(ask: Ask) -> Answer:
    with socket.socket(ask.family, socket.SOCK_DGRAM) as peer:
        peer.settimeout(ask.timeout_s)
        if ask.source_port:
            peer.bind(("", ask.source_port))
        if ask.connected:
            peer.connect((ask.address, ask.port))
            peer.send(ask.request.encode())
            data = peer.recv(65536)
            name = peer.getpeername()
        else:
            # without connect() a refusal is heard only when asked for
            level, option = (
                (socket.IPPROTO_IPV6, 25)
                if ask.family == socket.AF_INET6
                else (socket.IPPROTO_IP, 11)
            )  # IPV6_RECVERR, IP_RECVERR
            peer.setsockopt(level, option, 1)
            peer.sendto(ask.request.encode(), (ask.address, ask.port))
            data, name = peer.recvfrom(65536)
        return Answer("answered", data.decode().strip(), sender_text(name))


def _crc32c_table() -> list[int]:
    table = []
    for value in range(256):
        for _ in range(8):
            value = value >> 1 ^ (0x82F63B78 if value & 1 else 0)
        table.append(value)
    return table


CRC32C_TABLE = _crc32c_table()


def crc32c(data: bytes) -> int:
    """SCTP's checksum (RFC 9260, appendix A), of a packet whose checksum field is zero."""
    crc = 0xFFFFFFFF
    for byte in data:
        crc = crc >> 8 ^ CRC32C_TABLE[(crc ^ byte) & 0xFF]
    return crc ^ 0xFFFFFFFF


def sctp_packet(source: int, destination: int, tag: int, chunk: bytes) -> bytes:
    zero = struct.pack("!HHII", source, destination, tag, 0) + chunk
    return zero[:8] + struct.pack("<I", crc32c(zero)) + zero[12:]


def sctp_init(tag: int) -> bytes:
    return struct.pack("!BBHIIHHI", INIT, 0, 20, tag, 65536, 1, 1, 1)


def sctp(ask: Ask) -> Answer:
    """An INIT, and the INIT-ACK that must come to our tag, port and with a right checksum."""
    source = ask.source_port or 32768 + struct.unpack("!H", os.urandom(2))[0] % 28000
    tag = struct.unpack("!I", os.urandom(4))[0] or 1
    with socket.socket(ask.family, socket.SOCK_RAW, SCTP) as peer:
        # an ICMP error becomes an error of this socket only when connected
        peer.connect((ask.address, 0))
        peer.send(sctp_packet(source, ask.port, 0, sctp_init(tag)))
        deadline = time.monotonic() + ask.timeout_s
        while (left := deadline - time.monotonic()) > 0:
            peer.settimeout(left)
            packet = peer.recv(65536)
            if ask.family == socket.AF_INET:  # there the IP header is ours to see
                packet = packet[(packet[0] & 15) * 4 :]
            if len(packet) < 16 or packet[2:4] != source.to_bytes(2):
                continue
            from_port, _, to_tag, checksum = struct.unpack("!HHI4s", packet[:12])
            if int.from_bytes(checksum, "little") != crc32c(packet[:8] + bytes(4) + packet[12:]):
                return Answer("broken", "wrong checksum")
            if packet[12] == ABORT:
                return Answer("refused")
            if packet[12] == INIT_ACK and to_tag == tag:
                return Answer(
                    "answered", cookie(packet[12:]), sender_text((ask.address, from_port))
                )
    return Answer("silent")


def cookie(chunk: bytes) -> str:
    """The state cookie of an INIT-ACK: the lab's pods put their name there."""
    position = 20
    while position + 4 <= len(chunk):
        kind, length = struct.unpack("!HH", chunk[position : position + 4])
        if kind == STATE_COOKIE:
            return chunk[position + 4 : position + length].decode(errors="replace")
        position += max(4, -(-length // 4) * 4)
    return ""


def attempt(ask: Ask) -> Answer:
    began = time.monotonic()
    try:
        answer = {"tcp": tcp, "udp": udp, "sctp": sctp}[ask.protocol](ask)
    except TimeoutError:
        answer = Answer("silent")
    except OSError as error:
        if error.errno in REFUSED:
            answer = Answer("refused")
        elif error.errno in UNREACHABLE:
            answer = Answer("unreachable", os.strerror(error.errno))
        elif error.errno in BROKEN:
            answer = Answer("broken", os.strerror(error.errno))
        else:
            raise
    return Answer(answer.outcome, answer.text, answer.sender, time.monotonic() - began)


def main(argument: str) -> None:
    ask = Ask(**json.loads(argument))
    workers = 1 if ask.source_port else max(1, min(ask.parallel, ask.tries))
    with ThreadPoolExecutor(workers) as pool:
        answers = list(pool.map(attempt, [ask] * ask.tries))
    json.dump([asdict(answer) for answer in answers], sys.stdout)


if __name__ == "__main__":
    main(sys.argv[1])

"""Makes connections from where it runs and prints what became of each, as JSON. Standard library.

    probe.py '{"protocol": "tcp", "address": "10.96.0.9", "port": 80, "tries": 30}'

One process for all tries: the checker starts it in the source's network namespace. A request is
what the well-known test images answer: HTTP `GET /REQUEST`, or the message `REQUEST` by UDP or by
SCTP, whose associations are made by a raw socket: few kernels have SCTP's. Each try is an object:

    outcome   answered | refused | silent (nothing within timeout_s) | unreachable | broken
    text      the answer
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
DATA, INIT, INIT_ACK, ABORT, COOKIE_ECHO, COOKIE_ACK = 0, 1, 2, 6, 10, 11
STATE_COOKIE = 7  # a parameter of INIT ACK
WHOLE_MESSAGE = 3  # DATA's flags: begins and ends here


@dataclass(frozen=True)
class Ask:
    """What to do. Give `source_port` to use one port for all tries (then one after the other)."""

    protocol: str
    address: str
    port: int
    tries: int = 1
    request: str = "hostname"
    timeout_s: float = 5.0  # a busy machine may stop whoever answers for seconds
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


def sctp_chunk(kind: int, value: bytes, flags: int = 0) -> bytes:
    return struct.pack("!BBH", kind, flags, 4 + len(value)) + value + bytes(-len(value) % 4)


def sctp_chunks(data: bytes) -> dict[int, bytes]:
    """The chunks of a packet's body by their type: kind -> value."""
    found = {}
    while len(data) >= 4:
        kind, _, length = struct.unpack_from("!BBH", data)
        found[kind] = data[4:length]
        data = data[max(4, length + -length % 4) :]
    return found


def state_cookie(init_ack: bytes) -> bytes:
    """The state cookie among an INIT ACK's parameters; b"" without one."""
    parameters = init_ack[16:]
    while len(parameters) >= 4:
        kind, length = struct.unpack_from("!HH", parameters)
        if kind == STATE_COOKIE:
            return parameters[4:length]
        parameters = parameters[max(4, length + -length % 4) :]
    return b""


def sctp(ask: Ask) -> Answer:
    """An association by a raw socket: INIT, COOKIE ECHO, the request as DATA, ABORT."""
    source = ask.source_port or 32768 + struct.unpack("!H", os.urandom(2))[0] % 28000
    own_tag, tsn = struct.unpack("!II", os.urandom(8))
    own_tag |= 1
    deadline = time.monotonic() + ask.timeout_s
    with socket.socket(ask.family, socket.SOCK_RAW, SCTP) as peer:
        # an ICMP error becomes an error of this socket only when connected
        peer.connect((ask.address, 0))

        def send(tag: int, chunk: bytes) -> None:
            peer.send(sctp_packet(source, ask.port, tag, chunk))

        def receive(*kinds: int) -> dict[int, bytes]:
            """The next packet of this association that holds one of these chunks."""
            while (left := deadline - time.monotonic()) > 0:
                peer.settimeout(left)
                packet = peer.recv(65536)
                if ask.family == socket.AF_INET:  # there the IP header is ours to see
                    packet = packet[(packet[0] & 15) * 4 :]
                ports = struct.pack("!HH", ask.port, source)
                if packet[:4] != ports or int.from_bytes(packet[4:8]) != own_tag:
                    continue
                if packet[8:12] != struct.pack("<I", crc32c(packet[:8] + bytes(4) + packet[12:])):
                    raise ConnectionResetError(errno.ECONNRESET, "wrong CRC32c")
                chunks = sctp_chunks(packet[12:])
                if ABORT in chunks:
                    raise ConnectionRefusedError(errno.ECONNREFUSED, "ABORT")
                if chunks.keys() & set(kinds):
                    return chunks
            raise TimeoutError

        send(0, sctp_chunk(INIT, struct.pack("!IIHHI", own_tag, 1 << 16, 1, 1, tsn)))
        init_ack = receive(INIT_ACK)[INIT_ACK]
        peer_tag = int.from_bytes(init_ack[:4])
        send(peer_tag, sctp_chunk(COOKIE_ECHO, state_cookie(init_ack)))
        receive(COOKIE_ACK)
        request = struct.pack("!IHHI", tsn, 0, 0, 0) + ask.request.encode()
        send(peer_tag, sctp_chunk(DATA, request, WHOLE_MESSAGE))
        text = receive(DATA)[DATA][12:].decode().strip()
        send(peer_tag, sctp_chunk(ABORT, b""))
    return Answer("answered", text, sender_text((ask.address, ask.port)))


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

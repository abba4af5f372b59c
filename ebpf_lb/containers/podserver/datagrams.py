"""The commands that come in single messages: `hostname`, `clientip`, `echo TEXT`."""

import socket

LARGEST = 65535


def client_text(address: str, port: int) -> str:
    """As Go prints a client: `10.0.0.1:80`, `[fd00::1]:80`."""
    address = address.removeprefix("::ffff:")  # an IPv4 client of a socket for both families
    return f"[{address}]:{port}" if ":" in address else f"{address}:{port}"


def answer(request: bytes, name: str, client: str) -> bytes | None:
    """The answer to a message; None to one that is not a command."""
    command, _, argument = request.partition(b" ")
    match command.strip().lower():
        case b"hostname":
            return name.encode()
        case b"clientip":
            return client.encode()
        case b"echo":
            return argument
    return None


def serve(receiver: socket.socket, name: str) -> None:
    """Answers on a UDP socket, from the address that was asked: a node has several."""
    receiver.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4 << 20)
    dual = receiver.family is socket.AF_INET6
    if dual:
        receiver.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_RECVPKTINFO, 1)
    receiver.setsockopt(socket.IPPROTO_IP, IP_PKTINFO, 1)
    while True:
        try:
            request, controls, _, peer = receiver.recvmsg(LARGEST, 256)
        except ConnectionError:
            continue  # an ICMP error about an earlier answer
        reply = answer(request, name, client_text(peer[0], peer[1]))
        if reply is None:
            continue
        try:
            receiver.sendmsg([reply], source(controls), 0, peer)
        except OSError as error:
            print(f"to {client_text(peer[0], peer[1])}: {error}", flush=True)


IP_PKTINFO = getattr(socket, "IP_PKTINFO", 8)  # a constant since Python 3.12 only


def source(controls: list[tuple[int, int, bytes]]) -> list[tuple[int, int, bytes]]:
    """What was told of a message's destination, as what to say of its answer's source. The way
    back is the routing table's choice, but for link-local addresses."""
    for level, kind, data in controls:
        if level == socket.IPPROTO_IPV6 and kind == socket.IPV6_PKTINFO:
            if not data.startswith(b"\0" * 10 + b"\xff\xff"):  # mapped ones come as IP_PKTINFO too
                return [(level, kind, data if data[:1] == b"\xfe" else data[:16] + bytes(4))]
        elif level == socket.IPPROTO_IP and kind == IP_PKTINFO:
            return [(level, kind, bytes(4) + data[8:12] + bytes(4))]  # ipi_addr into ipi_spec_dst
    return []

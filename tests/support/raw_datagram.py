"""Asks by a datagram that is made by hand, over a raw socket; prints the answer.

    raw_datagram.py 10.96.0.9 53

Standard library: it is started with -I -S.
"""

import os
import socket
import struct
import sys
import time

IPV6_CHECKSUM = 7  # an option of raw sockets: where the kernel is to write it
REQUEST = b"hostname"
TIMEOUT_S = 20.0


def ask(address: str, port: int) -> bytes:
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    source_port = 40000 + struct.unpack("!H", os.urandom(2))[0] % 20000
    with socket.socket(family, socket.SOCK_RAW, socket.IPPROTO_UDP) as raw:
        if family == socket.AF_INET6:
            raw.setsockopt(socket.IPPROTO_IPV6, IPV6_CHECKSUM, 6)
        header = struct.pack("!HHHH", source_port, port, 8 + len(REQUEST), 0)
        raw.sendto(header + REQUEST, (address, 0))
        deadline = time.monotonic() + TIMEOUT_S
        while (left := deadline - time.monotonic()) > 0:
            raw.settimeout(left)
            packet, (sender, *_) = raw.recvfrom(65536)
            datagram = packet[(packet[0] & 15) * 4 :] if family == socket.AF_INET else packet
            if struct.unpack("!HH", datagram[:4]) == (port, source_port) and sender == address:
                return datagram[8:]
    raise TimeoutError


if __name__ == "__main__":
    print(ask(sys.argv[1], int(sys.argv[2])).decode())

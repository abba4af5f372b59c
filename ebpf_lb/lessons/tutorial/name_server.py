"""A name server outside the cluster that knows one name: `python -m … NAME ADDRESS`.

It says "ready" once its port is open, which another run may have for a while, and answers by UDP.
"""

import socket
import sys
import time

import dns.message
import dns.rcode
import dns.rdatatype
import dns.rrset

_AGAIN_S = 0.3


def main() -> None:
    name, address = sys.argv[1:]
    with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as wire:
        wire.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        _bind(wire)
        print("ready", flush=True)
        while True:
            data, sender = wire.recvfrom(4096)
            wire.sendto(_answer(dns.message.from_wire(data), name, address), sender)


def _bind(wire: socket.socket) -> None:
    while True:
        try:
            return wire.bind(("::", 53))
        except OSError:
            time.sleep(_AGAIN_S)


def _answer(query: dns.message.Message, name: str, address: str) -> bytes:
    response = dns.message.make_response(query, recursion_available=True)
    [question] = query.question
    if question.name.to_text(omit_final_dot=True) != name:
        response.set_rcode(dns.rcode.NXDOMAIN)
    elif question.rdtype == dns.rdatatype.A:
        response.answer.append(dns.rrset.from_text(question.name, 60, "IN", "A", address))
    return response.to_wire()


if __name__ == "__main__":
    main()

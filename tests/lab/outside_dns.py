"""A name server that knows one name: `python outside_dns.py` says "ready" once its port is open.

It runs on the lab's machine outside, and answers by UDP for ever.
"""

import socket

import dns.message
import dns.rcode
import dns.rrset

NAME, ADDRESS = "www.example.org.", "203.0.113.7"


def main() -> None:
    with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as wire:
        wire.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        wire.bind(("::", 53))
        print("ready", flush=True)
        while True:
            data, sender = wire.recvfrom(4096)
            query = dns.message.from_wire(data)
            response = dns.message.make_response(query)
            if query.question[0].name.to_text() == NAME:
                response.answer.append(dns.rrset.from_text(NAME, 60, "IN", "A", ADDRESS))
            else:
                response.set_rcode(dns.rcode.NXDOMAIN)
            wire.sendto(response.to_wire(), sender)


if __name__ == "__main__":
    main()

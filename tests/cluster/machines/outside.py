"""The host outside: a name server and a web server, for machines that know no others.

    python -m tests.cluster.machines.outside ADDRESS FOLDER

FOLDER has a folder for each host's name, `crt` and `key`. All names lead to ADDRESS. It says
"ready" once all ports are open, and serves until it is ended.
"""

import http.server
import socket
import ssl
import sys
import threading
from functools import partial
from pathlib import Path
from typing import Any

import dns.message
import dns.rcode
import dns.rdatatype
import dns.rrset


class Handler(http.server.SimpleHTTPRequestHandler):
    """Each name's folder is its site; `/client` says who asks."""

    def translate_path(self, path: str) -> str:
        host = (self.headers.get("Host") or "").partition(":")[0]
        return super().translate_path(f"/{host}{path}")

    def do_GET(self) -> None:
        if self.path == "/client":
            body = f"{self.client_address[0]}\n".encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)
        else:
            super().do_GET()

    def log_message(self, *_: Any) -> None:
        pass


def answer_names(wire: socket.socket, address: str, names: set[str]) -> None:
    while True:
        data, sender = wire.recvfrom(4096)
        query = dns.message.from_wire(data)
        response = dns.message.make_response(query, recursion_available=True)
        [question] = query.question
        name = question.name.to_text(omit_final_dot=True).lower()
        if name not in names:
            response.set_rcode(dns.rcode.NXDOMAIN)
        elif question.rdtype == dns.rdatatype.A:
            response.answer.append(dns.rrset.from_text(question.name, 60, "IN", "A", address))
        wire.sendto(response.to_wire(), sender)


def main() -> None:
    address, folder = sys.argv[1], Path(sys.argv[2])
    names = {site.name for site in folder.iterdir() if site.is_dir()}
    wire = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    wire.bind((address, 53))
    handler = partial(Handler, directory=str(folder))
    plain = http.server.ThreadingHTTPServer((address, 80), handler)
    secure = http.server.ThreadingHTTPServer((address, 443), handler)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folder / "crt", folder / "key")
    secure.socket = context.wrap_socket(
        secure.socket, server_side=True, do_handshake_on_connect=False
    )
    threads = [threading.Thread(target=answer_names, args=(wire, address, names), daemon=True)]
    threads += [
        threading.Thread(target=each.serve_forever, daemon=True) for each in (plain, secure)
    ]
    for thread in threads:
        thread.start()
    print("ready", flush=True)
    threads[0].join()


if __name__ == "__main__":
    main()

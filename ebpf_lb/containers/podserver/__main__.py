"""Opens every port, says that it is ready, serves until it is killed."""

import argparse
import os
import socket
import sys
import threading
from collections.abc import Callable
from functools import partial

from ebpf_lb.containers.podserver import datagrams, http


def main() -> None:
    parser = argparse.ArgumentParser(prog="podserver", description=__doc__)
    parser.add_argument("--name", required=True, help="what it says its host's name is")
    for protocol in ("tcp", "udp", "sctp"):
        parser.add_argument(f"--{protocol}", type=int, action="append", default=[], metavar="PORT")
    parser.add_argument(
        "--ready-fd", type=int, help="where to write a byte once every port is open"
    )
    options = parser.parse_args()
    threading.stack_size(256 * 1024)  # a thread a connection: a thousand of them must stay small

    loops: list[Callable[[], None]] = []
    for port in options.tcp:
        listener = _bound(socket.SOCK_STREAM, port)
        listener.listen(1024)
        loops.append(partial(http.serve, listener, options.name))
    for port in options.udp:
        receiver = _bound(socket.SOCK_DGRAM, port)
        loops.append(partial(datagrams.serve, receiver, options.name))
    if options.sctp:
        from ebpf_lb.containers.podserver import sctp  # costs 2 MB, which most pods can do without

        loops += sctp.servers(options.sctp, options.name)
    threads = [threading.Thread(target=loop, daemon=True) for loop in loops]
    for thread in threads:
        thread.start()
    print(f"{options.name}: tcp {options.tcp} udp {options.udp} sctp {options.sctp}", flush=True)
    if options.ready_fd is not None:
        os.write(options.ready_fd, b"\n")
        os.close(options.ready_fd)
    for thread in threads:
        thread.join()
    if threads:
        sys.exit("a server ended: see above")
    threading.Event().wait()  # a pod without ports just lives


def _bound(kind: socket.SocketKind, port: int) -> socket.socket:
    """A socket for both families, where there is IPv6."""
    try:
        made = socket.socket(socket.AF_INET6, kind)
    except OSError:
        made, wildcard = socket.socket(socket.AF_INET, kind), "0.0.0.0"
    else:
        made.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        wildcard = "::"
    if kind is socket.SOCK_STREAM:
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    made.bind((wildcard, port))
    return made


if __name__ == "__main__":
    main()

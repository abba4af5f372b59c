"""`python -m ebpf_lb.containers.dns`: cluster DNS as a process, in a pod's network namespace.

It follows the API server by the lab's local socket, and opens its port when it knows all Services.
Where there is CoreDNS it runs that instead, which needs a kubeconfig.
"""

import argparse
import asyncio
import logging
import os
import sys
from pathlib import Path

from ebpf_lb.containers.dns import coredns
from ebpf_lb.containers.dns.server import TTL_S, Resolver, listen
from ebpf_lb.containers.dns.zone import COLLECTIONS, Zone
from ebpf_lb.lab.names import CLUSTER_DOMAIN
from ebpf_lb.lab.objects.client import Client
from ebpf_lb.lab.objects.follow import News, follow_each


async def serve(options: argparse.Namespace) -> None:
    """For ever."""
    loop, zone, complete = asyncio.get_running_loop(), Zone(), asyncio.Event()

    def take(path: str, news: News) -> None:
        zone.take(path, news)
        if zone.complete:
            complete.set()

    def put(path: str, news: News) -> None:
        loop.call_soon_threadsafe(take, path, news)

    follow_each(Client(options.api), COLLECTIONS, put)
    await complete.wait()
    resolver = Resolver(zone, options.domain, options.upstream)
    await listen(resolver, options.port)
    logging.info("serves %s on port %d", options.domain, options.port)
    tell_ready(options)
    await asyncio.Event().wait()


def tell_ready(options: argparse.Namespace) -> None:
    if options.ready_fd is not None:
        os.write(options.ready_fd, b"\n")
        os.close(options.ready_fd)


def serve_by_coredns(name: str, options: argparse.Namespace) -> int:
    port, domain = options.port, options.domain
    text = coredns.corefile(port, domain, options.kubeconfig, TTL_S, options.upstream)
    logging.info("runs %s", name)
    return coredns.serve(name, text, port, domain, lambda: tell_ready(options))


def main() -> None:
    parser = argparse.ArgumentParser(prog="dns", description=__doc__)
    parser.add_argument("--api", type=Path, required=True, help="the API server's local socket")
    parser.add_argument("--domain", default=CLUSTER_DOMAIN)
    parser.add_argument("--port", type=int, default=53)
    parser.add_argument("--upstream", action="append", default=[], metavar="ADDRESS")
    parser.add_argument("--kubeconfig", type=Path, help="for CoreDNS; default: never run it")
    parser.add_argument("--ready-fd", type=int, help="where to write a byte once the port is open")
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    options = parser.parse_args()
    name = coredns.program() if options.kubeconfig else None
    if name is not None:
        try:
            sys.exit(serve_by_coredns(name, options))
        except coredns.CoreDnsError as error:
            sys.exit(f"dns: {error}")
    asyncio.run(serve(options))


if __name__ == "__main__":
    main()

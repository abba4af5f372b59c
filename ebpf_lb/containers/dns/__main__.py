"""`python -m ebpf_lb.containers.dns`: cluster DNS as a process, in a pod's network namespace.

It follows the API server by the lab's local socket, and opens its port when it knows all Services.
"""

import argparse
import asyncio
import logging
import os
from pathlib import Path

from ebpf_lb.containers.dns.server import Resolver, listen
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
    if options.ready_fd is not None:
        os.write(options.ready_fd, b"\n")
        os.close(options.ready_fd)
    await asyncio.Event().wait()


def main() -> None:
    parser = argparse.ArgumentParser(prog="dns", description=__doc__)
    parser.add_argument("--api", type=Path, required=True, help="the API server's local socket")
    parser.add_argument("--domain", default=CLUSTER_DOMAIN)
    parser.add_argument("--port", type=int, default=53)
    parser.add_argument("--upstream", action="append", default=[], metavar="ADDRESS")
    parser.add_argument("--ready-fd", type=int, help="where to write a byte once the port is open")
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    asyncio.run(serve(parser.parse_args()))


if __name__ == "__main__":
    main()

"""`python -m ebpf_lb.apiserver`: the server as a process."""

import asyncio
import logging
import sys
from pathlib import Path
from typing import Any

import click

from ebpf_lb.apiserver.server import ServerSettings, serve


@click.command()
@click.option(
    "--dir",
    "folder",
    type=click.Path(path_type=Path),
    required=True,
    help="Where token, certificates and state lie.",
)
@click.option(
    "--address", "addresses", multiple=True, required=True, help="An address to listen on with TLS."
)
@click.option("--port", default=6443, show_default=True)
@click.option(
    "--unix", "unix_socket", type=click.Path(path_type=Path), help="A socket that needs no token."
)
@click.option(
    "--service-cidr",
    "service_cidrs",
    multiple=True,
    required=True,
    help="Addresses for Services; the first one's family is the primary one.",
)
@click.option("--node-port-range", default="30000-32767", show_default=True)
@click.option(
    "--watch-history",
    default=10_000,
    show_default=True,
    help="Changes of each kind that a watch may lag behind.",
)
@click.option(
    "--bookmark-interval",
    "bookmark_interval_s",
    default=60.0,
    show_default=True,
    help="Seconds between the bookmarks of a watch.",
)
def main(node_port_range: str, **options: Any) -> None:
    """The lab's API server with its controllers."""
    logging.basicConfig(
        stream=sys.stderr, level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s"
    )
    first, _, last = node_port_range.partition("-")
    asyncio.run(serve(ServerSettings(**options, node_ports=(int(first), int(last)))))


main()

"""`ebpf-lb lab web`."""

import click

from ebpf_lb.cli.lab.common import with_lab
from ebpf_lb.lab.cluster import Lab


@click.command()
@click.option(
    "--port",
    type=click.IntRange(0, 65535),
    default=8480,
    show_default=True,
    help="On 127.0.0.1; 0 for any that is free.",
)
@with_lab
def web(lab: Lab, port: int) -> None:
    """Serve the lab as a page: a drawing that lives, real requests and their way by a click.

    Open the link that is printed in a browser on this machine; nobody without the link gets in.
    Ends with Ctrl-C, or when the lab is taken down.
    """
    import asyncio
    import contextlib

    from ebpf_lb.lessons.web.server import Page

    async def serve() -> None:
        page = Page(lab, port)
        await page.serve(lambda url: click.echo(f"The page is at {url}"))
        click.echo(f"Lab {lab.name!r} was taken down, so there is no page any more.")

    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(serve())

"""`ebpf-lb affinity`: which client keeps to which backend."""

import click

from ebpf_lb.cli.choice import Place, client_option, is_service, service_option
from ebpf_lb.cli.listing import Listing, listing_options
from ebpf_lb.model.values import format_address


@click.command()
@service_option
@client_option
@listing_options
def affinity(service: str | None, client: Place | None, listing: Listing) -> None:
    """List the clients that keep to a backend (sessionAffinity: ClientIP)."""
    from ebpf_lb.datapath.reader.services import affinities

    def show() -> None:
        listing.tell(
            "affinity",
            [
                one
                for view in listing.views(service)
                for one in affinities(view)
                if is_service(service, one.service)
                and (client is None or one.client in client.network)
            ],
            lambda one: {
                "client": format_address(one.client),
                "service": one.service,
                "backend": one.backend,
                "ageSeconds": one.age_s,
            },
            ["CLIENT", "SERVICE", "BACKEND", "LAST NEW CONNECTION"],
            lambda one: [
                format_address(one.client),
                one.service or "-",
                one.backend or "gone",
                "-" if one.age_s is None else f"{one.age_s:.0f}s",
            ],
            right=["LAST NEW CONNECTION"],
            nothing="No client keeps to a backend.",
        )

    listing.repeat(show)

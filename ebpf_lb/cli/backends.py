"""`ebpf-lb backends`: the endpoints, and which of them answer."""

from typing import TYPE_CHECKING, Any

import click

from ebpf_lb.cli.choice import Place, backend_option, is_service, service_option
from ebpf_lb.cli.listing import Listing, listing_options
from ebpf_lb.model.values import format_endpoint

if TYPE_CHECKING:
    from ebpf_lb.datapath.reader.summary import BackendSummary


@click.command()
@service_option
@backend_option
@click.option(
    "--unanswered",
    is_flag=True,
    help="Only those with connections that were not answered, or refused.",
)
@listing_options
def backends(
    service: str | None, backend: Place | None, unanswered: bool, listing: Listing
) -> None:
    """List the endpoints that connections are sent to, and what became of these.

    TRIED counts all connections since the agent's maps were made, those that live included.
    UNANSWERED are those that have not heard from the pod, REFUSED those that one end gave up before
    both had talked: one endpoint that has many, among others that have none, is dead, or has the
    wrong port.
    """
    from ebpf_lb.datapath.reader.summary import backend_summaries

    def show() -> None:
        listing.tell(
            "backends",
            [
                one
                for view in listing.views(service)
                for one in backend_summaries(view)
                if is_service(service, one.backend.service)
                and (backend is None or backend.holds(one.backend.address, one.backend.port))
                and (one.unanswered or one.refused or not unanswered)
            ],
            _row,
            ["BACKEND", "SERVICE", "RUNS", "CHOSEN BY", *COUNTED],
            lambda one: [
                format_endpoint(one.backend.address, one.backend.port),
                one.backend.service or "-",
                "here" if "ON_NODE" in one.backend.flags else "elsewhere",
                sets_of(one.backend.flags),
                *counted(one),
            ],
            right=COUNTED,
            nothing="No such backends.",
        )

    listing.repeat(show)


COUNTED = ["TRIED", "ANSWERED", "UNANSWERED", "REFUSED"]


def counted(one: "BackendSummary") -> list[str]:
    """A backend's connections, as COUNTED has them."""
    return [f"{number:,}" for number in (one.tried, one.answered, one.unanswered, one.refused)]


def _row(one: "BackendSummary") -> dict[str, Any]:
    return {
        "backend": format_endpoint(one.backend.address, one.backend.port),
        "service": one.backend.service,
        "protocol": one.backend.protocol,
        "onThisNode": "ON_NODE" in one.backend.flags,
        "inClusterSet": "IN_CLUSTER_SET" in one.backend.flags,
        "inLocalSet": "IN_LOCAL_SET" in one.backend.flags,
        "tried": one.tried,
        "answered": one.answered,
        "unanswered": one.unanswered,
        "refused": one.refused,
        "connections": one.connections,
    }


def sets_of(flags: tuple[str, ...]) -> str:
    """Which new connections may choose a backend with these flags."""
    chosen = [
        text
        for flag, text in (("IN_CLUSTER_SET", "Cluster"), ("IN_LOCAL_SET", "Local"))
        if flag in flags
    ]
    return ", ".join(chosen) if chosen else "none: it only ends its connections"

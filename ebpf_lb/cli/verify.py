"""`ebpf-lb verify`: what the API says against what the kernel holds."""

import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import click

from ebpf_lb.cli.agent_options import agent_options, resolve
from ebpf_lb.cli.output import as_json, output_option
from ebpf_lb.errors import UserError

if TYPE_CHECKING:
    from ebpf_lb.agent.config import Config
    from ebpf_lb.cli.planned import Planned
    from ebpf_lb.datapath.compare_node import WantedNode
    from ebpf_lb.model.values import Family

SAME, OTHER, CANNOT_TELL = 0, 1, 2

_SETTLES_S = 2.0  # an agent needs a moment for what has just changed
_MORE_S = 10.0  # than two periods: a pass itself takes a while, too


@click.command()
@agent_options
@click.option(
    "--repair",
    is_flag=True,
    help="Wait until the agent has put right what differs; it does so every syncPeriodS.",
)
@output_option
@click.pass_context
def verify(ctx: click.Context, /, repair: bool, form: str, **said: Any) -> None:
    """Compare what the API says with what the kernel holds: every entry, hooks, pins, programs.

    Takes the agent's options and files. Believes no agent: it lists the API itself, plans, and
    reads the maps. Exit status: 0 all is as it should be, 1 something differs, 2 it cannot be told.
    """
    try:
        config = resolve(said).config
        found = _lasting(config)
        if repair and found:
            found = _wait(config, found)
    except UserError as error:
        click.echo(f"Error: {error}", err=True)
        ctx.exit(CANNOT_TELL)
    if form == "json":
        click.echo(as_json({"same": not found, "differences": found}))
    elif found:
        for sentence in found:
            click.echo(f"{sentence}.")
    else:
        click.echo("The kernel holds what the API says.")
    ctx.exit(OTHER if found else SAME)


def _lasting(config: "Config") -> list[str]:
    """What differs now and a moment later."""
    found = list(_differences(config))
    if not found:
        return []
    time.sleep(_SETTLES_S)
    again = set(_differences(config))
    return [one for one in found if one in again]


def _wait(config: "Config", found: list[str]) -> list[str]:
    from ebpf_lb.cli.node_status import agent_runs

    if not agent_runs(config.bpffs):
        raise UserError(
            f"{len(found)} differences, and no agent runs that would put them right: start it."
        )
    give_up_at = time.monotonic() + 2 * config.sync_period_s + _MORE_S
    while found and time.monotonic() < give_up_at:
        time.sleep(_SETTLES_S)
        found = list(_differences(config))
    return found


def _differences(config: "Config") -> Iterator[str]:
    """Sentences without their full stop, Services' first."""
    from ebpf_lb.cli.planned import ask
    from ebpf_lb.datapath.attach.cgroup import wrong_links
    from ebpf_lb.datapath.attach.listing import Listing
    from ebpf_lb.datapath.compare import Comparison
    from ebpf_lb.datapath.compare_node import differences
    from ebpf_lb.datapath.loader import lacking
    from ebpf_lb.datapath.pins import Pins
    from ebpf_lb.datapath.reader import open_views
    from ebpf_lb.model.values import Family

    pins = Pins(config.bpffs)
    views = open_views(config.bpffs, list(Family))
    planned = ask(config)
    for view in views:
        own = [one for one in planned.forwardings if one.family is view.family]
        comparison = Comparison(view)
        ids = comparison.ids()
        for one in own:
            what = f"{one.name} ({one.name.protocol.name}, {view.family.directory})"
            for sentence in comparison.differences(ids.get(one.name), one):
                yield f"{what}: {sentence}"
        for name in sorted(ids.keys() - {one.name for one in own}):
            what = f"{name} ({name.protocol.name}, {view.family.directory})"
            yield f"{what}: it is in the maps, and nobody asks for it"
        comparison.close()
        for sentence in differences(view, _wanted(config, planned, view.family)):
            yield f"{view.family.directory}: {sentence}"
    yield from lacking(pins.current, config.settings)
    with Listing(pins.current) as listing:
        for interface in planned.network.interfaces.values():
            if interface.role.has_programs:
                for program in listing.missing(interface.index, interface.programs):
                    yield f"{interface.name}: the program {program} is not there"
    if config.cgroup is not None:
        for program in wrong_links(pins.current, pins.links, config.cgroup):
            yield f"{config.cgroup}: the program {program} is not there, for the node's own sockets"


def _wanted(config: "Config", planned: "Planned", family: "Family") -> "WantedNode":
    """Of the node itself, as an agent would write it."""
    from ebpf_lb.agent.host.process import netns_cookie
    from ebpf_lb.datapath.compare_node import WantedInterface, WantedNode
    from ebpf_lb.model.values import family_of

    network, pods = planned.network, planned.network.pod_networks
    own = [one for one in planned.service_networks if one.family is family]
    return WantedNode(
        {
            index: WantedInterface(one.name, one.bridge, one.source(family), one.mac, one.peer)
            for index, one in network.interfaces.items()
        },
        next((one for one in network.primary if family_of(one) is family), None),
        None if pods is None else frozenset(one for one in pods if one.family is family),
        tuple(own),
        netns_cookie(),
        config.masquerade_all,
        config.reject_per_second,
    )

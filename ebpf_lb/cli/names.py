"""Names that the shell completes: Services, backends, maps and reasons of this node.

Whatever goes wrong, a shell that asks gets no names rather than an error.
"""

import os
from pathlib import Path
from typing import TYPE_CHECKING

import click
from click.shell_completion import CompletionItem

from ebpf_lb.datapath.pins import DEFAULT_ROOT
from ebpf_lb.model.values import Family

if TYPE_CHECKING:
    from ebpf_lb.datapath.reader import View


def _views(ctx: click.Context) -> "list[View]":
    from ebpf_lb.datapath.reader import open_views

    return open_views(Path(ctx.params.get("bpffs") or DEFAULT_ROOT), list(Family))


def services(
    ctx: click.Context, param: click.Parameter, incomplete: str
) -> list[CompletionItem | str]:
    """namespace/name:port, or from the name on."""
    try:
        names = {name.service for view in _views(ctx) for name in view.names.values()}
    except Exception:
        return []
    found = {name for name in names if name.startswith(incomplete)}
    if "/" not in incomplete:
        found |= {
            name.partition("/")[2]
            for name in names
            if incomplete and name.partition("/")[2].startswith(incomplete)
        }
    return sorted(found)


def ends(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem | str]:
    """Who may ask and be asked: Services, this node itself, and its Pods where the API server can
    be asked for them."""
    from ebpf_lb.cli.cluster import Cluster

    found = [*services(ctx, param, incomplete)]
    try:
        cluster = Cluster(os.environ.get("EBPF_LB_KUBECONFIG") or os.environ.get("KUBECONFIG"))
        for pod in cluster.pods_on(cluster.node) or []:
            name = f"{pod['metadata']['namespace']}/{pod['metadata']['name']}"
            if name.startswith(incomplete):
                found.append(name)
    except Exception:
        return found
    return [*found, *(["node"] if "node".startswith(incomplete) else [])]


def backends(
    ctx: click.Context, param: click.Parameter, incomplete: str
) -> list[CompletionItem | str]:
    """Addresses of backends."""
    from ebpf_lb.datapath.reader.services import backends as records
    from ebpf_lb.model.values import format_address

    try:
        found = {format_address(one.address) for view in _views(ctx) for one in records(view)}
    except Exception:
        return []
    return sorted(name for name in found if name.startswith(incomplete))


def maps(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem | str]:
    from ebpf_lb.datapath.layout import load

    return [name for name in load(Family.IPV4).maps if name.startswith(incomplete)]


def reasons(
    ctx: click.Context, param: click.Parameter, incomplete: str
) -> list[CompletionItem | str]:
    from ebpf_lb.datapath.layout import load

    known = load(Family.IPV4).reasons.values()
    return [
        CompletionItem(one.name, help=one.sentence)
        for one in known
        if one.name.startswith(incomplete.upper())
    ]


def scenarios(
    ctx: click.Context, param: click.Parameter, incomplete: str
) -> list[CompletionItem | str]:
    """Those of the catalog, and folders."""
    try:
        from ebpf_lb.lessons.scenarios import catalog
    except ImportError:
        return []
    known: list[CompletionItem | str] = [
        CompletionItem(name, help=catalog.load(name).title)
        for name in catalog.names()
        if name.startswith(incomplete)
    ]
    return known or [CompletionItem(incomplete, type="dir")]

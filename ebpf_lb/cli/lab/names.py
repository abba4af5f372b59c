"""Names that the shell completes: labs, and the hosts of one. As in ebpf_lb.cli.names, whatever
goes wrong, there are no names rather than an error."""

import os

import click
from click.shell_completion import CompletionItem

from ebpf_lb.lab.cluster import Lab, all_labs
from ebpf_lb.lab.options import DEFAULT_NAME

Found = list[CompletionItem | str]


def labs(ctx: click.Context, param: click.Parameter, incomplete: str) -> Found:
    try:
        return [lab.name for lab in all_labs() if lab.name.startswith(incomplete)]
    except Exception:
        return []


def nodes(ctx: click.Context, param: click.Parameter, incomplete: str) -> Found:
    try:
        return [one.name for one in _lab(ctx).nodes() if one.name.startswith(incomplete)]
    except Exception:
        return []


def hosts(ctx: click.Context, param: click.Parameter, incomplete: str) -> Found:
    """The lab's machines and its pods."""
    try:
        lab = _lab(ctx)
        pods = {name for one in lab.pods() for name in (one.name, f"{one.namespace}/{one.name}")}
        found = [*lab.hosts(), *sorted(pods)]
    except Exception:
        return []
    return [name for name in found if name.startswith(incomplete)]


def _lab(ctx: click.Context) -> Lab:
    chosen = ctx.params.get("lab_name") or os.environ.get("EBPF_LB_LAB") or DEFAULT_NAME
    return Lab(str(chosen))

"""Options that several commands have."""

from pathlib import Path

import click

from ebpf_lb.datapath.pins import DEFAULT_ROOT

bpffs_option = click.option(
    "--bpffs",
    type=click.Path(path_type=Path),
    default=DEFAULT_ROOT,
    show_default=True,
    envvar="EBPF_LB_BPFFS",
    show_envvar=True,
    help="Where the node's maps and programs are pinned.",
)

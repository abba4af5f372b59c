"""Options that several commands have."""

from pathlib import Path
from typing import Any

import click

from ebpf_lb.datapath.pins import DEFAULT_ROOT
from ebpf_lb.model.ports import METRICS_PORT

bpffs_option = click.option(
    "--bpffs",
    type=click.Path(path_type=Path),
    default=DEFAULT_ROOT,
    show_default=True,
    envvar="EBPF_LB_BPFFS",
    show_envvar=True,
    help="Where the node's maps and programs are pinned.",
)


class _Address(click.ParamType):  # type: ignore[type-arg]
    name = "address"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        host, _, port = str(value).rpartition(":")
        if not (port.isascii() and port.isdigit() and 0 < int(port) < 1 << 16):
            self.fail(f"{value!r} is not ADDRESS:PORT, with a port from 1 to 65535.")
        return host.strip("[]"), int(port)


address_option = click.option(
    "--agent",
    type=_Address(),
    metavar="ADDRESS:PORT",
    envvar="EBPF_LB_METRICS_BIND_ADDRESS",
    show_envvar=True,
    default=f"127.0.0.1:{METRICS_PORT}",
    show_default=True,
    help="Where the agent serves /status: its metricsBindAddress.",
)

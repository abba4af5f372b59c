"""`ebpf-lb bundle`: what a colleague needs to see, in one file."""

import io
import json
import os
import subprocess
import tarfile
import time
from collections.abc import Callable, Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

import click

from ebpf_lb.cli import output
from ebpf_lb.cli.options import address_option, bpffs_option
from ebpf_lb.model.values import Family

_WITHIN_S = 10
_FLOWS = 10_000
_MOST_BYTES = 16 << 20  # of one file
# The first stands beside the maps; who knows the second can fill the sets that he likes.
_LEFT_OUT = ("flows", "flow_seed", "scratch")

# What lies beyond us, as the machine's own commands tell it. None of them tells secrets.
_COMMANDS = {
    "ip-address.txt": ("ip", "-details", "address"),
    "ip-rule.txt": ("ip", "rule"),
    "ip-6-rule.txt": ("ip", "-6", "rule"),
    "ip-route.txt": ("ip", "route", "show", "table", "all"),
    "ip-6-route.txt": ("ip", "-6", "route", "show", "table", "all"),
    "ip-neigh.txt": ("ip", "neigh"),
    "ip-link-statistics.txt": ("ip", "-s", "-s", "link"),
    "nft-ruleset.txt": ("nft", "list", "ruleset"),
    "iptables.txt": ("iptables-save",),
    "ss-summary.txt": ("ss", "-s"),
    "uptime.txt": ("uptime",),
}
_SETTINGS = (
    "net/ipv4/ip_forward",
    "net/ipv6/conf/all/forwarding",
    "net/ipv4/conf/all/rp_filter",
    "net/ipv4/conf/default/rp_filter",
    "net/ipv4/conf/lo/accept_local",
    "net/bridge/bridge-nf-call-iptables",
    "net/bridge/bridge-nf-call-ip6tables",
    "net/netfilter/nf_conntrack_count",
    "net/netfilter/nf_conntrack_max",
    "net/ipv4/ip_local_port_range",
)


@click.command()
@click.argument("file", type=click.Path(path_type=Path, dir_okay=False), required=False)
@address_option
@bpffs_option
def bundle(file: Path | None, agent: tuple[str, int], bpffs: Path) -> None:
    """Write the node's whole state into one FILE.tar.gz, for a bug report.

    In it: status, Services, backends, flows (10,000 at most), maps, metrics, and the machine's
    addresses, routes and firewall rules. Not in it: credentials, configuration files, logs, and the
    content of packets. Addresses of clients and names of Services are.
    """
    name = f"ebpf-lb-{os.uname().nodename}-{time.strftime('%Y%m%d-%H%M%S')}"
    path = file or Path(f"{name}.tar.gz")
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    except OSError as error:
        raise click.ClickException(f"{path} cannot be written: {error.strerror}.") from error
    failed = []
    with os.fdopen(descriptor, "wb") as raw, tarfile.open(fileobj=raw, mode="w:gz") as archive:
        for part, content in _parts(bpffs, agent):
            try:
                data = content()
            except Exception as error:
                failed.append(part)
                data = f"is not available: {error}\n".encode()
            _add(archive, f"{name}/{part}", data[:_MOST_BYTES])
    output.say(f"{path}: {path.stat().st_size:,} bytes.")
    if failed:
        output.say(f"Not available here: {', '.join(failed)}.")


def _add(archive: tarfile.TarFile, name: str, data: bytes) -> None:
    entry = tarfile.TarInfo(name)
    entry.size, entry.mtime = len(data), int(time.time())
    archive.addfile(entry, io.BytesIO(data))


def _parts(bpffs: Path, agent: tuple[str, int]) -> Iterator[tuple[str, Callable[[], bytes]]]:
    """Names of files, and what puts their content together."""
    from ebpf_lb.cli.node_status import get

    here = ("--bpffs", str(bpffs))
    yield "version.txt", lambda: f"ebpf-lb {version('ebpf-lb')}\n{os.uname()}\n".encode()
    where = f"{agent[0]}:{agent[1]}"
    yield "status.txt", lambda: _ours("status", "--agent", where, *here)
    yield "status.json", lambda: _ours("status", "-o", "json", "--agent", where, *here)
    yield "services.json", lambda: _ours("services", "-o", "json", *here)
    yield "backends.json", lambda: _ours("backends", "-o", "json", *here)
    yield "flows.json", lambda: _ours("flows", "-o", "json", "--limit", str(_FLOWS), *here)
    yield "reasons.json", lambda: _ours("reasons", "-o", "json", *here)
    yield "maps.json", lambda: _maps(bpffs)
    yield "metrics.txt", lambda: get(agent, "/metrics") or b"the agent does not answer\n"
    yield "settings.txt", _settings
    for name, command in _COMMANDS.items():
        yield name, lambda command=command: _run(*command)  # type: ignore[misc]


def _ours(*arguments: str) -> bytes:
    """What a command of ours prints, whatever it thinks of the node."""
    from click.testing import CliRunner

    from ebpf_lb.cli.main import main

    return CliRunner().invoke(main, list(arguments)).output.encode()


def _maps(bpffs: Path) -> bytes:
    """All but the connections, and what is nobody's business."""
    from ebpf_lb.datapath.dump import dump, map_names
    from ebpf_lb.datapath.reader import open_views

    contents: dict[str, Any] = {
        view.family.directory: {
            name: dump(view, name)
            for name in map_names(view, all_of_them=False)
            if name not in _LEFT_OUT
        }
        for view in open_views(bpffs, list(Family))
    }
    return output.as_json(contents).encode()


def _settings() -> bytes:
    found = {}
    for setting in _SETTINGS:
        try:
            found[setting.replace("/", ".")] = Path("/proc/sys", setting).read_text().strip()
        except OSError as error:
            found[setting.replace("/", ".")] = f"({error.strerror})"
    return json.dumps(found, indent=2).encode()


def _run(*command: str) -> bytes:
    done = subprocess.run(command, capture_output=True, timeout=_WITHIN_S, check=False)
    return done.stdout + done.stderr

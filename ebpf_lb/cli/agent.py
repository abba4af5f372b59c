"""`ebpf-lb agent`: the process that runs on every node."""

import os
from typing import Any

import click

from ebpf_lb.cli.agent_options import agent_options, resolve


@click.command()
@agent_options
@click.option(
    "--init-only",
    is_flag=True,
    help="Do what takes all of root's rights (a bpffs, sysctls), and end: the agent then needs the "
    "capabilities BPF, NET_ADMIN and PERFMON alone.",
)
def agent(init_only: bool, **said: Any) -> None:
    """Watch the API server and forward Services by eBPF, in kube-proxy's place.

    Each option has an environment variable (EBPF_LB_NODE_NAME) and a key in the configuration file
    (nodeName); a flag wins over the environment, that over the file. kube-proxy's flags and its
    KubeProxyConfiguration are understood as they are: `ebpf-lb config show` prints what becomes of
    them.
    """
    found = resolve(said)
    config = found.config
    if os.geteuid() != 0:
        raise click.ClickException("`ebpf-lb agent` needs root: run it with sudo.")
    if init_only:
        from ebpf_lb.agent.initialization import initialize

        for sentence in initialize(config):
            click.echo(sentence, err=True)
        return
    from ebpf_lb.agent.servers.pages import Probes

    probes = Probes(config)
    from ebpf_lb.agent.host.preparation import Preparation

    preparation = Preparation(config.bpffs, config.settings, anew=config.compile)
    from ebpf_lb.agent.run import run  # takes half a second

    run(config, found.warnings, probes, preparation)

#!/usr/bin/env python3
"""A Kubernetes cluster in network namespaces of this machine, for judging service proxies.

rig.py up [--nodes 3] [--family dual|ipv4] [--cni bridge|ptp]
          [--proxy none|kube-proxy:nftables|kube-proxy:iptables|manifests:IMAGE:FOLDER|exec:COMMAND]
rig.py proxy SPEC            takes the running proxy out and puts another in
rig.py e2e --focus REGEX [--skip REGEX] [--procs 4] [--timeout 2h] [--junit FILE]
           [--baseline FILE] [--passed FILE] [--list]
rig.py kubectl ARGS…
rig.py exec node1|router|control|client -- COMMAND…
rig.py restart node1 [--kubelet]
rig.py status
rig.py down
"""

import argparse
import contextlib
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

from riglib import balancer, conf, control, e2e, images, net, pki, proxies
from riglib import node as nodes
from riglib.proc import alive, each, in_netns, in_node, run, stop, wait_for

# Settings of the whole machine: those that kubelet changes, and those that many programs need.
KEPT = [
    "vm.overcommit_memory",
    "vm.panic_on_oom",
    "kernel.panic",
    "kernel.panic_on_oops",
    "kernel.keys.root_maxkeys",
    "kernel.keys.root_maxbytes",
    "fs.inotify.max_user_instances",
    "fs.inotify.max_user_watches",
]
RAISED = {"fs.inotify.max_user_instances": 8192, "fs.inotify.max_user_watches": 524288}


def sysctl_file(name):
    return Path("/proc/sys") / name.replace(".", "/")


def up(args):
    if conf.State.FILE.exists():
        raise SystemExit("rig: already up (or not taken down), run `rig.py down` first")
    began = time.monotonic()

    def say(what):
        print(f"{time.monotonic() - began:6.1f} s  {what}", flush=True)

    archive = images.build()
    say("images made")
    shutil.rmtree(conf.LOGS, ignore_errors=True)
    state = conf.State()
    state.nodes, state.family, state.proxy, state.cni = (
        args.nodes,
        args.family,
        args.proxy,
        args.cni,
    )
    proxies.plug(state)
    state.sysctls = {name: sysctl_file(name).read_text().strip() for name in KEPT}
    state.save()
    for name, value in RAISED.items():
        sysctl_file(name).write_text(str(value))
    net.up(state)
    pki.up(state)
    say("network and certificates made")
    control.up(state)
    say("control plane up")
    each(lambda node: nodes.up(state, node, archive), state.node_list())
    say("containerd up and images imported on all nodes")
    proxies.start(state)
    say(f"proxy {state.proxy} started")
    control.cluster_dns(state)
    balancer.up(state)
    wait_for("the nodes", lambda: control.nodes_ready(state), timeout=180, every=1)
    say("nodes ready")
    if state.proxy != "none":
        control.kubectl(
            "-n",
            "kube-system",
            "rollout",
            "status",
            "deployment/coredns",
            "--timeout=590s",
            timeout=600,
        )
        say("cluster DNS ready")


def down(args):
    state = conf.State()
    each(lambda node: nodes.down(state, node), state.node_list())
    stop(state, "balancer")
    control.down(state)
    kill_strays()
    net.down()
    for name, value in state.sysctls.items():
        sysctl_file(name).write_text(value)
    wait_for("the end of all processes", lambda: not nodes.remove_cgroups(), timeout=20, every=0.2)
    wait_for(f"the end of {conf.RUN}", removed, timeout=20, every=0.2)


def removed():
    """What still ends may write for a moment."""
    shutil.rmtree(conf.RUN, ignore_errors=True)
    return not conf.RUN.exists()


def kill_strays():
    """Ends what is still in our network namespaces, such as a command begun by `exec`."""
    for line in run("ip", "netns", "list", check=False).splitlines():
        name = line.split()[0]
        if name.startswith(conf.PREFIX + "-"):
            for pid in run("ip", "netns", "pids", name, check=False).split():
                with contextlib.suppress(ProcessLookupError):
                    os.kill(int(pid), signal.SIGKILL)


def status(args):
    state = conf.State()
    if not state.processes:
        print("down")
        return
    print(f"{state.nodes} nodes, {state.family}, proxy {state.proxy}, cni {state.cni}")
    for name, process in state.processes.items():
        print(f"{'up' if alive(process) else 'DEAD':5}{process['pid']:8}  {name}")
    print(control.kubectl("get", "nodes", "-o", "wide", check=False))
    print(control.kubectl("get", "pods", "-A", "-o", "wide", check=False))


def kubectl(args):
    words = [
        *in_netns("client"),
        conf.BIN / "kubectl",
        "--kubeconfig",
        pki.DIR / "admin.kubeconfig",
    ]
    return subprocess.call([str(word) for word in words] + args.words)


def execute(args):
    state = conf.State()
    words = [word for position, word in enumerate(args.words) if position or word != "--"]
    if args.node in ("router", "control", "client"):
        return subprocess.call(in_netns(args.node) + words)
    return subprocess.call(in_node(state, state.node(args.node)) + words, cwd="/")


def restart(args):
    """All of a node, or its kubelet; returns when the API server calls it ready again."""
    state = conf.State()
    node = state.node(args.node)
    if args.kubelet:
        nodes.restart_kubelet(state, node)
    else:
        nodes.reboot(state, node)
        proxy = proxies.plug(state)
        if proxy.process(node) in state.processes:  # not one that a kubelet starts
            proxy.start(node)
        control.not_ready(node)
    wait_for("the nodes", lambda: control.nodes_ready(state), timeout=180, every=1)


def main():
    if os.geteuid():
        raise SystemExit("rig: must be root")
    # kubectl's and exec's words are theirs, not ours
    words = sys.argv[1:]
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    command = commands.add_parser("up")
    command.add_argument("--nodes", type=int, default=3)
    command.add_argument("--proxy", default="kube-proxy:nftables")
    command.add_argument("--family", choices=["dual", "ipv4"], default="dual")
    command.add_argument("--cni", choices=["bridge", "ptp"], default="bridge")
    command.set_defaults(function=up)

    command = commands.add_parser("proxy")
    command.add_argument("spec")
    command.set_defaults(function=lambda args: proxies.change(conf.State(), args.spec))

    command = commands.add_parser("e2e")
    command.add_argument("--focus", default=r"\[sig-network\]")
    command.add_argument("--skip", default=e2e.SKIP)
    command.add_argument("--procs", type=int, default=4)
    command.add_argument("--timeout", default="2h")
    command.add_argument("--junit", help="a JUnit report's file")
    command.add_argument("--baseline", help="run exactly the specs named in this file")
    command.add_argument("--passed", help="write the names of the passed specs to this file")
    command.add_argument("--list", action="store_true", help="only say which specs would run")
    command.set_defaults(function=e2e.command)

    command = commands.add_parser("restart")
    command.add_argument("node")
    command.add_argument("--kubelet", action="store_true", help="no more than its kubelet")
    command.set_defaults(function=restart)

    for name, function in (("kubectl", kubectl), ("exec", execute)):
        command = commands.add_parser(name)
        if name == "exec":
            command.add_argument("node")
        command.add_argument("words", nargs=argparse.REMAINDER)
        command.set_defaults(function=function)
    for name, function in (("status", status), ("down", down)):
        commands.add_parser(name).set_defaults(function=function)

    if words[:1] == ["kubectl"]:
        return kubectl(argparse.Namespace(words=words[1:]))
    args = parser.parse_args(words)
    return args.function(args)


if __name__ == "__main__":
    sys.exit(main())

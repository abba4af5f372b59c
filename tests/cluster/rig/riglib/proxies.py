"""The plug for service proxies. A proxy is a class with start(node), stop(node), ready(node).

none                    nothing
kube-proxy:nftables     the real kube-proxy, also kube-proxy:iptables
manifests:IMAGE:FOLDER  a DaemonSet: the archive IMAGE is imported on each node, FOLDER applied by
                        `kubectl apply -k`, and its pods say when a node is ready; whole paths
exec:COMMAND            any program, started as a process of each node; in COMMAND {kubeconfig},
                        {node}, {ips}, {pod_cidrs}, {cgroup}, {dir} and {api} are filled in
"""

import functools
import json
import shlex
from typing import ClassVar

from . import conf, control, pki
from . import node as nodes
from .proc import alive, in_node, run, stop, wait_for


class Proxy:
    """Starts nothing."""

    TIMEOUT = 90  # until it is ready

    def __init__(self, state, argument=""):
        self.state, self.argument = state, argument

    def start(self, node):
        pass

    def stop(self, node):
        pass

    def ready(self, node):
        return True

    def process(self, node):
        return f"{node.name}/proxy"


class KubeProxy(Proxy):
    # what the specs of LocalhostNodePorts ask for
    LOCALHOST: ClassVar = {
        "featureGates": {"KubeProxyNFTablesLocalhostNodePorts": True},
        "nodePortAddresses": ["primary", "localhost"],
    }

    def start(self, node):
        file = node.dir / "kube-proxy.json"
        file.write_text(
            json.dumps(
                {
                    "apiVersion": "kubeproxy.config.k8s.io/v1alpha1",
                    "kind": "KubeProxyConfiguration",
                    "mode": self.argument,
                    "hostnameOverride": node.name,
                    "clientConnection": {"kubeconfig": str(pki.DIR / "proxy.kubeconfig")},
                    "clusterCIDR": ",".join([conf.PODS[0]] + ([conf.PODS[1]] if node.dual else [])),
                    "healthzBindAddress": "0.0.0.0:10256",
                    "metricsBindAddress": "127.0.0.1:10249",
                    # the table's size belongs to the machine, not to a network namespace
                    "conntrack": {"maxPerCore": 0, "min": 0},
                    **(self.LOCALHOST if self.argument == "nftables" else {}),
                },
                indent=1,
            )
        )
        nodes.start_in(
            self.state, node, "proxy", [conf.BIN / "kube-proxy", f"--config={file}", "-v=2"]
        )

    def stop(self, node):
        stop(self.state, self.process(node))
        run(*in_node(self.state, node), conf.BIN / "kube-proxy", "--cleanup", check=False)

    def ready(self, node):
        return "200" in run(
            *in_node(self.state, node),
            "curl",
            "-s",
            "-o",
            "/dev/null",
            "-w",
            "%{http_code}",
            "http://127.0.0.1:10256/healthz",
            check=False,
        )


class Manifests(Proxy):
    TIMEOUT = 300

    def __init__(self, state, argument=""):
        super().__init__(state, argument)
        self.image, _, self.folder = argument.partition(":")

    def start(self, node):
        nodes.load(self.state, node, self.image)
        control.kubectl("apply", "-k", self.folder)

    def stop(self, node):
        control.kubectl("delete", "-k", self.folder, "--ignore-not-found")

    def ready(self, node):
        made = json.loads(control.kubectl("get", "-k", self.folder, "-o", "json"))["items"]
        [own] = [item for item in made if item["kind"] == "DaemonSet"]
        labels = own["spec"]["selector"]["matchLabels"]
        words = ["-n", own["metadata"]["namespace"], "get", "pods", "-o", "json"]
        words += [f"--field-selector=spec.nodeName={node.name}", "-l"]
        words += [",".join(f"{name}={value}" for name, value in labels.items())]
        return any(
            condition["type"] == "Ready" and condition["status"] == "True"
            for pod in json.loads(control.kubectl(*words))["items"]
            for condition in pod["status"].get("conditions", [])
        )


class Command(Proxy):
    def start(self, node):
        words = {
            "kubeconfig": pki.DIR / "proxy.kubeconfig",
            "node": node.name,
            "ips": ",".join(node.ips),
            "pod_cidrs": ",".join(node.pod_cidrs),
            "cgroup": nodes.cgroup_v2(node),
            "dir": node.dir,
            "api": conf.API,
        }
        nodes.start_in(self.state, node, "proxy", shlex.split(self.argument.format(**words)))

    def stop(self, node):
        stop(self.state, self.process(node))

    def ready(self, node):
        return alive(self.state.processes.get(self.process(node)))


KINDS = {"none": Proxy, "kube-proxy": KubeProxy, "manifests": Manifests, "exec": Command}


def plug(state):
    kind, _, argument = state.proxy.partition(":")
    if kind not in KINDS or (kind == "kube-proxy" and argument not in ("nftables", "iptables")):
        raise SystemExit(f"rig: no proxy {state.proxy}")
    return KINDS[kind](state, argument)


def start(state):
    proxy = plug(state)
    for node in state.node_list():
        proxy.start(node)
        ready = functools.partial(proxy.ready, node)
        wait_for(f"the proxy of {node.name}", ready, proxy.TIMEOUT)


def change(state, spec):
    """Takes the running proxy out and puts another in."""
    old = plug(state)
    for node in state.node_list():
        old.stop(node)
    state.proxy = spec
    state.save()
    start(state)

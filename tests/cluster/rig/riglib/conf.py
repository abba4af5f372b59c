"""Names, addresses and paths of the rig, and what it remembers between two commands."""

import json
import os
from dataclasses import dataclass
from pathlib import Path

PREFIX = os.environ.get("KUBE_RIG") or "krig"  # two rigs at once: another name for one of them
HERE = Path(__file__).resolve().parent.parent
CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "kube-rig"
BIN = CACHE / "bin"
IMAGES = CACHE / "images"
OWN = CACHE if PREFIX == "krig" else CACHE / PREFIX
RUN = OWN / "run"  # everything that `down` removes
LOGS = OWN / "logs"  # kept until the next `up`

# The underlay network joins the router, the control plane and the nodes; the outside network
# joins the router and the client. The router's address is .1 in both.
UNDERLAY = ("172.30.0.", 24, "fd30::", 64)
OUTSIDE = ("172.31.0.", 24, "fd31::", 64)
CONTROL, FIRST_NODE, CLIENT = 10, 11, 2
PODS = ("10.244.0.0/16", "fd00:10:244::/48")
SERVICES = ("10.96.0.0/16", "fd00:10:96::/112")
DNS = ("10.96.0.10", "fd00:10:96::a")
BALANCERS = ("172.29.0.", 24, "fd29::", 112)  # addresses of LoadBalancer Services
API = f"https://{UNDERLAY[0]}{CONTROL}:6443"
DOMAIN = "cluster.local"


def netns(name):
    return f"{PREFIX}-{name}"


@dataclass(frozen=True)
class Node:
    number: int  # 1, 2, …
    dual: bool

    @property
    def name(self):
        return f"node{self.number}"

    @property
    def netns(self):
        return netns(self.name)

    @property
    def ips(self):
        host = FIRST_NODE + self.number - 1
        return [f"{UNDERLAY[0]}{host}"] + ([f"{UNDERLAY[2]}{host}"] if self.dual else [])

    @property
    def pod_cidrs(self):
        return [f"10.244.{self.number}.0/24"] + (
            [f"fd00:10:244:{self.number}::/64"] if self.dual else []
        )

    @property
    def zone(self):
        return "zone-" + "abc"[(self.number - 1) % 3]

    @property
    def dir(self):
        return RUN / self.name

    @property
    def cgroup(self):
        """Below each cgroup mount: node processes are in host/, pods in kubepods/."""
        return f"/{PREFIX}-{self.name}"

    @property
    def kubeconfig(self):
        return RUN / "pki" / f"{self.name}.kubeconfig"


class State:
    """What is up: the options, the processes started and the settings of the machine changed."""

    FILE = RUN / "state.json"

    def __init__(self):
        self.nodes, self.family, self.proxy, self.cni = 3, "dual", "none", "bridge"
        self.processes = {}  # name -> {"pid":, "start":}
        self.sysctls = {}  # what the machine had before
        if self.FILE.exists():
            self.__dict__.update(json.loads(self.FILE.read_text()))

    @property
    def dual(self):
        return self.family == "dual"

    def node_list(self):
        return [Node(number, self.dual) for number in range(1, self.nodes + 1)]

    def node(self, name):
        for node in self.node_list():
            if node.name == name:
                return node
        raise SystemExit(f"rig: no node {name}")

    def save(self):
        RUN.mkdir(parents=True, exist_ok=True)
        new = self.FILE.with_suffix(".new")
        new.write_text(json.dumps(self.__dict__, indent=1))
        new.replace(self.FILE)

"""Where `make bench-path` measures: labs, with a client and servers in them, and their proxies.

Nodes have no rules of netfilter's but those of a proxy: what a CNI adds is its own price, and would
be paid by whoever goes by the stack alone.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from ebpf_lb.lab.cluster import Lab
from ebpf_lb.lab.options import Options
from tests.lab.conftest import Room, room_in
from tests.support.manifests import Manifest, cluster_ip, deployment, service

NODES = {"near": "node1", "far": "node2"}
NUMBERS = {"near": 70, "far": 71, "outer": 72}
NODE_PORT = 31777
PORT = 7
STRAIGHT, BY_SERVICE, BY_NODE_PORT = 7070, 7071, 7072
"""Where nothing else listens. One for each way to a server: netpath.c says why."""
ENDPOINTS = 10  # of each of the other Services
_WITHIN_S = 60


def others(count: int) -> Iterator[Manifest]:
    """Services that nobody asks, with endpoints that nobody has."""
    for number in range(count):
        name, place = f"other-{number}", number * ENDPOINTS
        port = {"name": "p", "port": 8080, "protocol": "TCP"}
        spec = {"ports": [{"name": "p", "port": 80, "targetPort": 8080}]}
        endpoints = [
            {"addresses": [f"10.251.{each >> 8 & 255}.{each & 255}"], "conditions": {"ready": True}}
            for each in range(place, place + ENDPOINTS)
        ]
        yield {"apiVersion": "v1", "kind": "Service", "metadata": {"name": name}, "spec": spec}
        yield {
            "apiVersion": "discovery.k8s.io/v1",
            "kind": "EndpointSlice",
            "metadata": {"name": name, "labels": {"kubernetes.io/service-name": name}},
            "addressType": "IPv4",
            "ports": [port],
            "endpoints": endpoints,
        }


@dataclass
class Ends:
    """A lab with a client and servers in it."""

    room: Room

    @property
    def lab(self) -> Lab:
        return self.room.lab

    def netns(self, who: str) -> Path:
        """Of a pod, by its deployment's name, or of the machine outside."""
        found = self.lab.place("client" if who == "outside" else self.room.pod(who)).netns
        assert found is not None
        return found

    def address(self, app: str, family: str) -> str:
        [pod] = self.room.pods(app).values()
        return next(str(a) for a in pod.addresses if (":" in str(a)) == (family == "ipv6"))

    def node_address(self, name: str, family: str) -> str:
        [node] = [node for node in self.lab.nodes() if node.name == name]
        return next(str(a) for a in node.addresses if (":" in str(a)) == (family == "ipv6"))


@contextmanager
def lab_up(name: str, options: Options, services: int = 0) -> Iterator[Ends]:
    lab = Lab(name)
    with ExitStack() as stack:
        stack.callback(lab.down)
        lab.up(options, progress=lambda *_: None)
        for node in lab.nodes():
            lab.exec(node.name, ["nft", "flush", "ruleset"], check=True)
        folder = stack.enter_context(tempfile.TemporaryDirectory())
        [room] = stack.enter_context(_rooms(lab, Path(folder)))
        outer = service(
            "outer", app="far", number=NUMBERS["outer"], port=PORT, target_port=BY_NODE_PORT,
            protocols=("TCP", "UDP"), type="NodePort",
        )  # fmt: skip
        for port in outer["spec"]["ports"]:
            port["nodePort"] = NODE_PORT
        room.apply(
            deployment("client", node="node1"),
            *(deployment(app, node=node) for app, node in NODES.items()),
            *(
                service(app, number=NUMBERS[app], port=PORT, target_port=BY_SERVICE)
                for app in NODES
            ),
            outer,
            *others(services),
        )
        yield Ends(room)


@contextmanager
def _rooms(lab: Lab, folder: Path) -> Iterator[list[Room]]:
    rooms = room_in(lab, folder)
    try:
        yield [next(rooms)]
    finally:
        next(rooms, None)


# --- netfilter's part


def kube_proxy_program() -> str:
    """Kubernetes' own, where it is at hand: $KUBE_PROXY, in the path, or where `make cluster` has
    built it; else ""."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    built = cache / "kube-rig" / "bin" / "kube-proxy"
    named = os.environ.get("KUBE_PROXY") or shutil.which("kube-proxy")
    return named or (str(built) if built.exists() else "")


@contextmanager
def netfilter(ends: Ends, services: int) -> Iterator[str]:
    """On a lab's nodes, who has no proxy else. Its name: kube-proxy's, or that of rules which do
    the same for these Services."""
    program = kube_proxy_program()
    with ExitStack() as stack:
        for node in sorted(set(NODES.values())):
            if program:
                stack.enter_context(_kube_proxy(ends, node, program))
            else:
                ends.lab.exec(node, ["nft", "-f", "-"], input=rules(ends, services), check=True)
        yield "kube-proxy" if program else "nftables"


@contextmanager
def _kube_proxy(ends: Ends, node: str, program: str) -> Iterator[None]:
    place = ends.lab.place(node)
    folder = Path(tempfile.mkdtemp(prefix="ebpf-lb-bench-"))
    config, log = folder / "kubeconfig", folder / "log"
    config.write_text(ends.lab.kubeconfig(node))
    argv = [
        *("nsenter", f"--net={place.netns}", program, "--kubeconfig", config),
        *("--proxy-mode", "nftables", "--hostname-override", node),
        *("--cluster-cidr", "10.244.0.0/16,fd00:10:244::/48"),
        # the table's size belongs to the machine, not to a network namespace
        *("--conntrack-max-per-core", "0", "--conntrack-min", "0"),
    ]
    with log.open("w") as said:
        process = subprocess.Popen([str(word) for word in argv], stdout=said, stderr=said)
    try:
        end = time.monotonic() + _WITHIN_S
        wanted = [cluster_ip(NUMBERS["outer"], family) for family in ("ipv4", "ipv6")]
        while True:
            listed = ends.lab.exec(node, ["nft", "list", "ruleset"]).stdout
            if all(f"{address} . tcp . {PORT} : goto" in listed for address in wanted):
                break
            if process.poll() is not None or time.monotonic() > end:
                raise RuntimeError(f"kube-proxy on {node}: {log.read_text()[-800:]}")
            time.sleep(0.5)
        yield
    finally:
        process.terminate()
        process.wait()
        shutil.rmtree(folder)


def rules(ends: Ends, services: int) -> str:
    """What kube-proxy's nftables mode does for these Services, in short; both families'."""
    return "".join(_rules(ends, services, family) for family in ("ipv4", "ipv6"))


def _rules(ends: Ends, services: int, family: str) -> str:
    ip, kind = ("ip6", "ipv6_addr") if family == "ipv6" else ("ip", "ipv4_addr")
    lines, elements, ports = [f"table {ip} bench {{"], [], []
    for name, number in NUMBERS.items():
        app, target = ("far", BY_NODE_PORT) if name == "outer" else (name, BY_SERVICE)
        to = ends.address(app, family)
        to = f"[{to}]" if ip == "ip6" else to
        for protocol in ("tcp", "udp"):
            chain = f"{name}-{protocol}"
            lines += [
                f"chain {chain}-0 {{ meta l4proto {protocol} dnat to {to}:{target}; }}",
                f"chain {chain} {{ numgen random mod 1 vmap {{ 0 : goto {chain}-0 }}; }}",
                f"chain {chain}-masq {{ mark set mark or 0x4000; goto {chain}; }}",
            ]
            elements.append(f"{cluster_ip(number, family)} . {protocol} . {PORT} : goto {chain}")
            if name == "outer":
                ports.append(f"{protocol} . {NODE_PORT} : goto {chain}-masq")
    for number in range(services):
        chain = f"other-{number}"
        lines.append(f"chain {chain} {{ drop; }}")
        other = f"{number >> 8 & 255}.{number & 255}"
        address = f"fd00:10:97::{number:x}" if ip == "ip6" else f"10.97.{other}"
        elements.append(f"{address} . tcp . 80 : goto {chain}")
    nodes = ", ".join(ends.node_address(node, family) for node in NODES.values())
    lines += [
        f"map services {{ type {kind} . inet_proto . inet_service : verdict; elements = {{",
        ",\n".join(elements),
        "} }",
        "map ports { type inet_proto . inet_service : verdict; elements = {",
        ",\n".join(ports),
        "} }",
        "chain pre { type nat hook prerouting priority dstnat;",
        f"{ip} daddr . meta l4proto . th dport vmap @services;",
        f"{ip} daddr {{ {nodes} }} meta l4proto . th dport vmap @ports; }}",
        "chain post { type nat hook postrouting priority srcnat;",
        "mark & 0x4000 != 0 mark set mark xor 0x4000 masquerade fully-random; }",
        "}",
    ]
    return "\n".join(lines) + "\n"

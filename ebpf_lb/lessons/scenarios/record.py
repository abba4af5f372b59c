"""One real connection in a lab, captured at every interface of every machine."""

import json
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ebpf_lb.errors import UserError
from ebpf_lb.lab.cluster import Lab
from ebpf_lb.lab.kubelet.sandbox import host_link
from ebpf_lb.lab.names import (
    OUTSIDE,
    ROUTER_HOST,
    UNDERLAY,
    UPLINK,
    client_interfaces,
    clients,
    control_addresses,
)
from ebpf_lb.lab.pods import Pod
from ebpf_lb.lessons.scenarios import drops
from ebpf_lb.lessons.scenarios.capture import Capture
from ebpf_lb.lessons.scenarios.frames import Endpoint
from ebpf_lb.lessons.scenarios.recording import Connection, Machine, Recording
from ebpf_lb.lessons.scenarios.stack import StackWatch
from ebpf_lb.model.values import Family

_TIMEOUT_S = 0.8  # below TCP's first retransmission, a second after the SYN
_LAST_PACKETS_S = 0.1  # the connection's end is captured too
_CONNECT = Path(__file__).with_name("connect.py")


class ConnectError(UserError):
    """The client could not even try."""


@dataclass(frozen=True, slots=True)
class Question:
    """Who asks whom for what. client: a machine, or a pod by the name that it has in `namespace`;
    pods of other namespaces are NAMESPACE/NAME."""

    client: str
    asked: Endpoint
    protocol: str = "TCP"
    request: str = "clientip"
    namespace: str = ""

    def host(self, lab: Lab) -> str:
        """The client as `lab exec` names it."""
        if self.client in lab.hosts() or "/" in self.client:
            return self.client
        return f"{self.namespace}/{self.client}"


def connect(lab: Lab, question: Question) -> dict[str, Any]:
    """Connects, without a capture: what `connect.py` prints. Raises ConnectError."""
    wanted = {
        "protocol": question.protocol,
        "address": question.asked.address,
        "port": question.asked.port,
        "request": question.request,
        "timeout_s": _TIMEOUT_S,
    }
    # -I and -S: no site packages, a quick start
    argv = [sys.executable, "-I", "-S", str(_CONNECT), json.dumps({**wanted, "times": 1})]
    done = lab.exec(question.host(lab), argv)
    if done.returncode:
        raise ConnectError(f"connecting from {question.client} failed: {done.stderr.strip()}")
    [answer] = json.loads(done.stdout)
    return dict(answer)


def record(lab: Lab, question: Question, *, look_inside: bool = False) -> Recording:
    """Connects, and records what every machine saw of it; look_inside: also in the nodes' stacks.
    Raises ConnectError, CaptureError, StackError."""
    machines = _machines(lab, question.namespace)
    family = Family.IPV6 if ":" in question.asked.address else Family.IPV4
    before = drops.counted(lab.nodes(), family)
    watched = [(node.name, node.netns) for node in lab.nodes()] if look_inside else []
    with (
        StackWatch(watched) as stack,
        Capture((machine.name, netns) for machine, netns, _ in machines) as capture,
    ):
        answer = connect(lab, question)
        time.sleep(_LAST_PACKETS_S)
        frames, sights = capture.frames(), stack.sights()
    dropped = drops.since(before, drops.counted(lab.nodes(), family))
    connection = Connection(
        protocol=question.protocol,
        machine=question.client,
        source_port=answer["source_port"],
        asked=question.asked,
        request=question.request,
        outcome=answer["outcome"],
        text=answer["text"],
    )
    wires = tuple(wire for _, _, wire in machines if wire)
    names = tuple(machine for machine, _, _ in machines)
    inside = sights if look_inside else None
    return Recording(connection, names, wires, frames, dropped, inside)


_Wire = tuple[tuple[str, str], tuple[str, str]]


def _machines(lab: Lab, namespace: str) -> list[tuple[Machine, Path, _Wire | None]]:
    """Every machine and pod of the lab, where it is, and its wire to what it hangs on."""
    options, names = lab.options, lab.names
    families = options.families
    gateways = [
        str(interface.ip)
        for segment in (UNDERLAY, OUTSIDE)
        for interface in segment.host(ROUTER_HOST, families)
    ]
    found: list[tuple[Machine, Path, _Wire | None]] = [
        (Machine("router", "router", tuple(gateways)), names.netns("router"), None),
        _leaf(Machine("control", "control", control_addresses(options)), names.netns("control")),
    ]
    for number, client in enumerate(clients(options), start=1):
        addresses = tuple(str(i.ip) for i in client_interfaces(number, families))
        name = "client" if number == 1 else client
        found.append(_leaf(Machine(name, "client", addresses), names.netns(client), port=client))
    for node in lab.nodes():
        # the gateway of its pods, and its address in the overlay if there is one (topology.py)
        numbers = (1,) if options.network == "routes" else (1, 0)
        inside = [str(i.ip) for n in numbers for i in node.pod_segment.host(n, families)]
        machine = Machine(node.name, "node", (*node.addresses, *inside))
        found.append(_leaf(machine, node.netns))
    for pod in lab.pods():
        if not pod.host_network:
            found.append(_pod(pod, namespace))
    return found


def _leaf(machine: Machine, netns: Path, port: str = "") -> tuple[Machine, Path, _Wire]:
    """Its uplink is plugged into the router's port of its name."""
    return machine, netns, ((machine.name, UPLINK), ("router", port or machine.name))


def _pod(pod: Pod, namespace: str) -> tuple[Machine, Path, _Wire]:
    name = pod.name if pod.namespace == namespace else f"{pod.namespace}/{pod.name}"
    wire = ((name, UPLINK), (pod.node, host_link(pod.namespace, pod.name)))
    return Machine(name, "pod", pod.addresses, pod.node), pod.netns, wire

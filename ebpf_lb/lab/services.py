"""The lab's own processes: API server, kubelet, cloud, and an agent a node. What each is started
with, and how one sees that it serves."""

import http.client
import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ebpf_lb.errors import UserError
from ebpf_lb.lab import namespaces, topology
from ebpf_lb.lab.names import (
    API_PORT,
    PODS,
    SERVICES,
    LabNames,
    NodeNames,
    control_addresses,
)
from ebpf_lb.lab.objects.client import ApiError, Client
from ebpf_lb.lab.options import Options
from ebpf_lb.lab.processes import Place, Process, spawn
from ebpf_lb.model.ports import HEALTHZ_PORT, METRICS_PORT

API_SERVER = "apiserver"
KUBELET = "kubelet"
CLOUD = "cloud"
_ANSWER_S = 10.0

# A node of a lab is small: a table for 65,536 connections instead of a million, unless whoever
# starts the agent says otherwise.
_AGENT_ENVIRONMENT = {"EBPF_LB_FLOWS": "65536"}

Record = Callable[[Process], None]


class NotServingError(UserError):
    """A process of the lab ended, or does not answer in time."""


def host_place(names: LabNames, host: str) -> Place:
    """Where a process of a machine that is not a node runs."""
    return Place(names.netns(host), names.cgroup / host, {"EBPF_LB_LAB": names.name})


def node_place(node: NodeNames) -> Place:
    """Where a node's own process runs: with the node's settings in its environment, and with
    `ebpf-lb` in its path."""
    return Place(
        node.netns,
        node.host_cgroup,
        {
            "EBPF_LB_LAB": node.lab.name,
            "EBPF_LB_BPFFS": str(node.bpffs),
            "EBPF_LB_CGROUP": str(node.cgroup),
            "EBPF_LB_NODE_NAME": node.name,
            "KUBECONFIG": str(node.lab.kubeconfig(node.name)),
            **{key: os.environ.get(key, value) for key, value in _AGENT_ENVIRONMENT.items()},
        },
    )


def start_api_server(names: LabNames, options: Options, record: Record) -> Process:
    argv = [sys.executable, "-m", "ebpf_lb.apiserver", "--dir", str(names.api_dir)]
    for address in control_addresses(options):
        argv += ["--address", address]
    argv += ["--port", str(API_PORT), "--unix", str(names.api_socket)]
    for network in SERVICES.networks(options.families):
        argv += ["--service-cidr", str(network)]
    names.api_dir.mkdir(exist_ok=True)
    return spawn(host_place(names, "control"), argv, names.log(API_SERVER), record=record)


def start_kubelet(names: LabNames, record: Record) -> Process:
    """In no lab's namespace, since it works in all of them."""
    argv = [sys.executable, "-m", "ebpf_lb.lab.kubelet", names.name]
    place = Place(None, names.cgroup / KUBELET, {})
    return spawn(place, argv, names.log(KUBELET), record=record)


def start_cloud(names: LabNames, record: Record) -> Process:
    """On the router, whose routes it keeps."""
    argv = [sys.executable, "-m", "ebpf_lb.lab.cloud", names.name]
    return spawn(host_place(names, "router"), argv, names.log(CLOUD), record=record)


def start_udp_tunnel(node: NodeNames, record: Record) -> Process:
    argv = [sys.executable, "-m", "ebpf_lb.lab.udp_tunnel", node.lab.name, node.name]
    return spawn(node_place(node), argv, node.lab.log(node.tunnel), record=record)


def start_agent(node: NodeNames, options: Options, record: Record) -> Process:
    if options.xdp == "native":
        topology.make_ready_for_xdp(node)
    argv = [
        *(sys.executable, "-m", "ebpf_lb", "agent"),
        *("--kubeconfig", str(node.lab.kubeconfig(node.name))),
        *("--node-name", node.name),
        *("--cluster-cidr", ",".join(map(str, PODS.networks(node.families)))),
        *("--bpffs", str(node.bpffs)),
        *("--cgroup", str(node.cgroup) if options.socket_hooks else "none"),
        *("--host-routing", options.host_routing),
        *("--xdp", options.xdp),
    ]
    return spawn(node_place(node), argv, node.lab.log(node.agent), record=record)


def api_server_serves(names: LabNames) -> bool:
    if not names.api_socket.exists():
        return False
    try:
        Client(names.api_socket).get("/readyz")
    except PermissionError:
        raise
    except (ApiError, OSError, http.client.HTTPException):
        return False
    return True


def agent_serves(node: NodeNames) -> bool:
    """Whether the node's /healthz answers 200."""
    return _ask_agent(node, HEALTHZ_PORT, "/healthz") is not None


def agent_status(node: NodeNames) -> dict[str, Any]:
    """What the node's agent says of itself; {} if it does not answer."""
    return json.loads(_ask_agent(node, METRICS_PORT, "/status") or b"{}")  # type: ignore[no-any-return]


def _ask_agent(node: NodeNames, port: int, path: str) -> bytes | None:
    """What it answers with status 200."""
    with namespaces.entered(node.netns):
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=_ANSWER_S)
        try:
            connection.request("GET", path)
            response = connection.getresponse()
            return response.read() if response.status == 200 else None
        except (OSError, http.client.HTTPException):
            return None
        finally:
            connection.close()


def complaint(what: str, log: Path) -> NotServingError:
    """An error with the last line that the process wrote."""
    lines = log.read_text(errors="replace").split("\n") if log.exists() else []
    last = next((line.strip() for line in reversed(lines) if line.strip()), "nothing")
    return NotServingError(f"{what}; the last it said was: {last} (all of it: {log})")

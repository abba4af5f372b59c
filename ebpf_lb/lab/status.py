"""A lab's state in one look, as data."""

from collections.abc import Iterator
from typing import Any

from ebpf_lb.lab import services
from ebpf_lb.lab.cloud.addresses import external_addresses
from ebpf_lb.lab.names import API_PORT, LabNames, NodeNames, api_url, client_interfaces, clients
from ebpf_lb.lab.objects.client import Client
from ebpf_lb.lab.state import State

Object = dict[str, Any]


def collect(names: LabNames) -> Object:
    """Options, machines, pods, Services, and what is not well ("problems"). What the API server
    says of pods and Services is left out while it does not answer. Raises NotUpError."""
    kept = State.load(names)
    options, processes = kept.options, kept.processes
    serves = services.api_server_serves(names)
    objects = _Objects(Client(names.api_socket)) if serves else None
    kubelet, cloud = processes.get(services.KUBELET), processes.get(services.CLOUD)
    found: Object = {
        "name": names.name,
        "complete": kept.complete,
        "options": options.to_json(),
        "clients": {
            client: [str(i.ip) for i in client_interfaces(number, options.families)]
            for number, client in enumerate(clients(options), start=1)
        },
        "api_server": {
            "url": api_url(options),
            "port": API_PORT,
            "socket": str(names.api_socket),
            "health": "healthy" if serves else "does not answer",
        },
        "kubelet": "runs" if kubelet and kubelet.alive else "does not run",
        "cloud": "runs" if cloud and cloud.alive else "does not run",
        "nodes": [
            {
                "name": node.name,
                "addresses": list(node.addresses),
                "pod_cidrs": list(node.pod_cidrs),
                "zone": node.zone,
                "netns": str(node.netns),
                "bpffs": str(node.bpffs),
                "cgroup": str(node.cgroup),
                "agent": agent_state(kept, node),
                "xdp": _xdp(node),
            }
            for node in names.nodes(options)
        ],
        "pods": objects.pods() if objects else [],
        "services": objects.services() if objects else [],
    }
    return found | {"problems": list(_problems(names, found))}


def _problems(names: LabNames, found: Object) -> Iterator[Object]:
    """Sentences about what does not work, each with the log to look into."""

    def problem(sentence: str, process: str) -> Object:
        return {"problem": sentence, "log": str(names.log(process))}

    if not found["complete"]:
        yield problem("the lab was left half-built: take it down", services.API_SERVER)
    if found["api_server"]["health"] != "healthy":
        yield problem("the API server does not answer", services.API_SERVER)
    for name in (services.KUBELET, services.CLOUD):
        if found[name] != "runs":
            yield problem(f"the {name} does not run", name)
    for node in found["nodes"]:
        if node["agent"] == "healthy" or found["options"]["proxy"] == "none":
            continue
        words = {"dead": "has ended", "unhealthy": "is not healthy"}
        state = words.get(node["agent"], "does not run")
        yield problem(f"the agent on {node['name']} {state}", f"agent-{node['name']}")
    for pod in found["pods"]:
        if pod["reason"]:
            sentence = f"pod {pod['namespace']}/{pod['name']} does not start: {pod['reason']}"
            yield problem(sentence, services.KUBELET)


def agent_state(kept: State, node: NodeNames) -> str:
    """none: never started, or ended by `lab agent`; dead: it ended by itself."""
    process = kept.processes.get(node.agent)
    if process is None:
        return "none"
    if not process.alive:
        return "dead"
    return "healthy" if services.agent_serves(node) else "unhealthy"


def _xdp(node: NodeNames) -> dict[str, str]:
    """Interface -> where XDP runs on it, or tc; empty without XDP or agent."""
    interfaces = services.agent_status(node).get("xdp", {}).get("interfaces", {})
    return {name: one["mode"] for name, one in interfaces.items()}


class _Objects:
    """What the API server knows."""

    def __init__(self, client: Client):
        self._pods = client.get("/api/v1/pods")["items"]
        self._services = client.get("/api/v1/services")["items"]
        self._slices = client.get("/apis/discovery.k8s.io/v1/endpointslices")["items"]

    def pods(self) -> list[Object]:
        return [
            {
                "namespace": pod["metadata"]["namespace"],
                "name": pod["metadata"]["name"],
                "node": pod["spec"].get("nodeName", ""),
                "addresses": [ip["ip"] for ip in pod.get("status", {}).get("podIPs") or []],
                "host_network": bool(pod["spec"].get("hostNetwork")),
                "state": pod_state(pod),
                "reason": pod.get("status", {}).get("message", ""),
            }
            for pod in self._pods
        ]

    def services(self) -> list[Object]:
        return [
            {
                "namespace": service["metadata"]["namespace"],
                "name": service["metadata"]["name"],
                "type": service["spec"].get("type", "ClusterIP"),
                "cluster_ips": service["spec"].get("clusterIPs") or [],
                "external_ips": list(external_addresses(service)),
                "ports": [_port_text(port) for port in service["spec"].get("ports") or []],
                "ready_endpoints": self._ready_endpoints(service["metadata"]),
            }
            for service in self._services
        ]

    def _ready_endpoints(self, service: Object) -> int:
        """Endpoints, not addresses: a pod with two families counts once."""
        by_family: dict[str, int] = {}
        for slice_ in self._slices:
            metadata = slice_["metadata"]
            name = (metadata.get("labels") or {}).get("kubernetes.io/service-name")
            if (metadata["namespace"], name) != (service["namespace"], service["name"]):
                continue
            ready = sum(
                (endpoint.get("conditions") or {}).get("ready") is not False
                for endpoint in slice_.get("endpoints") or []
            )
            family = slice_["addressType"]
            by_family[family] = by_family.get(family, 0) + ready
        return max(by_family.values(), default=0)


def pod_state(pod: Object) -> str:
    if "deletionTimestamp" in pod["metadata"]:
        return "terminating"
    conditions = {c["type"]: c["status"] for c in pod.get("status", {}).get("conditions") or []}
    phase = str(pod.get("status", {}).get("phase", "Pending"))
    if phase != "Running":
        return phase.lower()
    return "ready" if conditions.get("Ready") == "True" else "not ready"


def _port_text(port: Object) -> str:
    node_port = f":{port['nodePort']}" if port.get("nodePort") else ""
    return f"{port['port']}{node_port}/{port.get('protocol', 'TCP')}"

"""Step 5: clients outside, and what else a Service can be."""

from functools import partial

from ebpf_lb.apiserver.kinds import SERVICE
from ebpf_lb.lab.names import LOAD_BALANCERS
from ebpf_lb.lessons.tutorial.captured import Question, connect
from ebpf_lb.lessons.tutorial.stage import Stage

TITLE = "In from outside: NodePort, LoadBalancer, externalIPs"
TEXT = (
    "A NodePort answers on every node, and where the pod is on another, the node puts its own "
    "address in the client's place so that the answer comes back to it; externalTrafficPolicy "
    "Local keeps the client's address and uses pods of the same node only. A LoadBalancer has an "
    "address of its own outside, and its balancer asks the nodes which of them have a pod; an "
    "externalIP is one that somebody else brings to the nodes."
)
_WEB = """
apiVersion: v1
kind: Pod
metadata: {name: web, labels: {app: web}}
spec:
  nodeName: node1
  containers:
    - name: c
      image: registry.k8s.io/e2e-test-images/agnhost:2.53
      args: [netexec, --http-port=8080]
      ports: [{containerPort: 8080}]
---
apiVersion: v1
kind: Service
metadata: {name: web}
spec:
  type: LoadBalancer
  externalTrafficPolicy: %s
  selector: {app: web}
  ports: [{port: 80, targetPort: 8080}]
"""


def act(stage: Stage) -> None:
    stage.apply(_WEB % "Cluster")
    stage.ready_pods(1)
    _node_ports(stage)
    _draw(stage)
    _local(stage)
    _load_balancer(stage)
    _health_checks(stage)
    _external_ip(stage)


def _client_address(stage: Stage, url: str) -> str:
    """As the pod sees it: without the port."""
    return "".join(stage.ask("client", url)).rpartition(":")[0].strip("[]")


def _own_addresses(stage: Stage) -> str:
    return stage.run("client", "sh", "-c", "ip -o addr show dev eth0 scope global", quiet=True)


def _node_urls(stage: Stage) -> dict[str, str]:
    port = stage.get("services", "web")["spec"]["ports"][0]["nodePort"]
    return {
        node.name: stage.url(node.addresses[0], port, "/clientip") for node in stage.lab.nodes()
    }


def _node_ports(stage: Stage) -> None:
    stage.say("\nThe pod is on node1. Whom does it see when a client outside asks each node?")
    own = _own_addresses(stage)
    for node, url in _node_urls(stage).items():
        seen = stage.wait(f"an answer at {url}", partial(_client_address, stage, url))
        if node == "node1":
            stage.show(f"{url}  by {node}: the pod sees {seen}, the client")
            stage.check(f" {seen}/" in own, "node1 put somebody in the client's place")
        else:
            stage.show(f"{url}  by {node}: the pod sees {seen}, {node} itself")
            is_node = seen in stage.lab.node(node).addresses
            stage.check(is_node, f"{node} did not put itself in the client's place")


def _question(stage: Stage, title: str, node: str) -> Question:
    return Question(
        name="web",
        title=title,
        lesson="",
        client="client",
        service="web",
        address="nodePort",
        outcome="answered",
        node=node,
        place=stage.namespace,
    )


def _draw(stage: Stage) -> None:
    stage.tell(
        "By node2, captured at every hop. If node2 changed the destination only, the pod would "
        "answer the client directly, from an address that the client never asked. So node2 puts "
        "itself in the client's place as well, and undoes both in the answer:"
    )
    question = _question(stage, "In by one node, served on another", "node2")
    connect(stage, "cross-node-snat", question, answer=True)


def _local(stage: Stage) -> None:
    stage.say("\nThe same with externalTrafficPolicy Local:")
    stage.apply(_WEB % "Local")
    own, urls = _own_addresses(stage), _node_urls(stage)
    stage.wait("node2 serves it no more", lambda: not stage.ask("client", urls["node2"]))
    stage.show(f"{urls['node2']}  by node2: no answer")
    seen = stage.wait("the client's own address", lambda: _own_address(stage, urls["node1"], own))
    stage.show(f"{urls['node1']}  by node1: the pod sees {seen}, the client")
    stage.tell("By node1, captured: the source stays as it is, and no other node is on the way.")
    question = _question(stage, "externalTrafficPolicy Local: the client's address stays", "node1")
    connect(stage, "node-port-local", question, answer=True)


def _own_address(stage: Stage, url: str, own: str) -> str:
    seen = _client_address(stage, url)
    return seen if seen and f" {seen}/" in own else ""


def _load_balancer(stage: Stage) -> None:
    def given() -> str:
        status = stage.get("services", "web").get("status", {})
        ingress = (status.get("loadBalancer") or {}).get("ingress") or [{}]
        return str(ingress[0].get("ip", ""))

    address = stage.wait("the cloud gives an address", given)
    stage.say(f"\nThe cloud gave the Service {address}; the router knows which node may have it:")
    stage.wait("the address answers", lambda: stage.ask("client", stage.url(address)))
    stage.run("client", "curl", "-sg", "-w", "\\n", stage.url(address))

    def ways() -> list[str]:
        nodes: list[str] = stage.lab.routes()[address]["nodes"]
        return nodes if nodes == ["node1"] else []

    nodes = stage.wait("the router knows the one node with a pod", ways)
    stage.show(f"ways to {address}: {', '.join(nodes)}")


def _health_checks(stage: Stage) -> None:
    service = stage.get("services", "web")
    port = service["spec"]["healthCheckNodePort"]
    stage.tell(f"It knows because it asks each node, on the Service's healthCheckNodePort {port}:")
    for node in stage.lab.nodes():
        url = stage.url(node.addresses[0], port)
        words = ("curl", "-sg", "-w", " (status %{http_code})", url)
        expected = "200" if node.name == "node1" else "503"
        stage.wait(f"{node.name} says {expected}", partial(_says, stage, words, expected))
        stage.run("router", *words)


def _says(stage: Stage, words: tuple[str, ...], status: str) -> bool:
    return f"(status {status})" in stage.run("router", *words, quiet=True)


def _external_ip(stage: Stage) -> None:
    """An address of the cloud's network that it gives last."""
    [network, *_] = LOAD_BALANCERS.networks(stage.lab.options.families)
    address = str(network[network.num_addresses - 2])
    stage.say(f"\nAn address that somebody else sends to the nodes, as externalIPs: {address}")
    stage.patch(SERVICE.path(stage.namespace, "web"), {"spec": {"externalIPs": [address]}})
    url = stage.url(address)
    stage.wait(f"{address} answers", lambda: stage.ask("client", url) == ["web"])
    stage.run("client", "curl", "-sg", "-w", "\\n", url)

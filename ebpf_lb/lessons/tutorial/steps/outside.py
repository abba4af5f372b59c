"""Step 5: clients outside, and what else a Service can be."""

from functools import partial

from ebpf_lb.lessons.scenarios import catalog, way
from ebpf_lb.lessons.scenarios import run as running
from ebpf_lb.lessons.scenarios import text as drawing
from ebpf_lb.lessons.tutorial.stage import Stage

TITLE = "In from outside: NodePort, LoadBalancer, affinity"
TEXT = (
    "A NodePort answers on every node, and where the pod is on another, the node puts its own "
    "address in the client's place so that the answer comes back to it; externalTrafficPolicy "
    "Local keeps the client's address and uses pods of the same node only. A LoadBalancer has an "
    "address of its own outside, session affinity keeps a client with its pod, and a Service "
    "without selector may lead to a database anywhere."
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
_HOSTNAMES = """
apiVersion: apps/v1
kind: Deployment
metadata: {name: sticky}
spec:
  replicas: 3
  selector: {matchLabels: {app: sticky}}
  template:
    metadata: {labels: {app: sticky}}
    spec:
      containers:
        - name: c
          image: registry.k8s.io/e2e-test-images/agnhost:2.53
          args: [serve-hostname]
          ports: [{containerPort: 9376}]
---
apiVersion: v1
kind: Service
metadata: {name: sticky}
spec:
  sessionAffinity: %s
  selector: {app: sticky}
  ports: [{port: 80, targetPort: 9376}]
"""
_DATABASE = """
apiVersion: v1
kind: Service
metadata: {{name: database}}
spec: {{ports: [{{name: sql, port: 5432, targetPort: 8080}}], ipFamilies: [{family}]}}
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {{name: database-1, labels: {{kubernetes.io/service-name: database}}}}
addressType: {family}
endpoints: [{{addresses: ["{address}"]}}]
ports: [{{name: sql, port: 8080}}]
"""


def act(stage: Stage) -> None:
    stage.apply(_WEB % "Cluster")
    stage.ready_pods(1)
    _node_ports(stage)
    _draw(stage)
    _local(stage)
    _load_balancer(stage)
    _database(stage)
    _affinity(stage)


def _client_address(stage: Stage, url: str) -> str:
    """As the pod sees it: without the port."""
    return "".join(stage.ask("client", url)).rpartition(":")[0].strip("[]")


def _node_urls(stage: Stage) -> dict[str, str]:
    port = stage.get("services", "web")["spec"]["ports"][0]["nodePort"]
    nodes = stage.lab.nodes()[:2]
    return {node.name: stage.url(node.addresses[0], port, "/clientip") for node in nodes}


def _node_ports(stage: Stage) -> None:
    stage.say("\nThe pod is on node1. Whom does it see when a client outside asks each node?")
    own = stage.run("client", "sh", "-c", "ip -o addr show dev eth0 scope global", quiet=True)
    for node, url in _node_urls(stage).items():
        seen = stage.wait(f"an answer at {url}", partial(_client_address, stage, url))
        stage.show(f"{url}  by {node}: the pod sees {seen}")
        is_client = f" {seen}/" in own
        stage.check(node == "node1" or not is_client, "node2 did not put itself in between")


def _draw(stage: Stage) -> None:
    stage.say("\nThe same on a Service of its own, captured at every hop:")
    scenario = catalog.load("cross-node-snat")
    with running.prepared(stage.lab, scenario):
        version = int(stage.lab.options.families[0])
        stories = [way.tell(one) for one in running.record(stage.lab, scenario, version)]
    stage.show(drawing.render(scenario, stories))
    outcome = stories[0].connection.outcome
    stage.check(outcome == scenario.outcome, f"the connection was {outcome}")


def _local(stage: Stage) -> None:
    stage.say("\nThe same with externalTrafficPolicy Local:")
    stage.apply(_WEB % "Local")
    own = stage.run("client", "sh", "-c", "ip -o addr show dev eth0 scope global", quiet=True)
    urls = _node_urls(stage)
    stage.wait("node2 serves it no more", lambda: not stage.ask("client", urls["node2"]))
    stage.show(f"{urls['node2']}  by node2: no answer")
    seen = stage.wait("the client's own address", lambda: _own_address(stage, urls["node1"], own))
    stage.show(f"{urls['node1']}  by node1: the pod sees {seen}")


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
    way = stage.lab.routes()[address]
    stage.show(f"ways to {address}: {', '.join(way['nodes'])}")
    stage.check(way["nodes"] == ["node1"], "the router sends it to a node without a pod")


def _database(stage: Stage) -> None:
    stage.say(
        "\nA Service without selector, with an EndpointSlice made by hand, to a pod's address:"
    )
    address = stage.get("pods", "web")["status"]["podIP"]
    family = "IPv6" if ":" in address else "IPv4"
    stage.apply(_DATABASE.format(address=address, family=family))
    url = stage.url(stage.service_address("database"), 5432)
    stage.wait("the database answers", lambda: stage.ask("node2", url) == ["web"])
    stage.run("node2", "curl", "-sg", "-w", "\\n", url)


def _affinity(stage: Stage) -> None:
    stage.say("\nSession affinity: without it, and with it, 20 connections of one client:")
    stage.apply(_HOSTNAMES % "None")
    pods = [name for name in stage.ready_pods(4) if name.startswith("sticky-")]
    url = stage.url(stage.service_address("sticky"))
    stage.served_by("web", url, pods)
    stage.count("web", url, 20)
    stage.apply(_HOSTNAMES % "ClientIP")
    stage.wait("one pod for one client", lambda: len(set(stage.ask("web", url, 20))) == 1)
    counts = stage.count("web", url, 20)
    stage.check(len(counts) == 1, "a client came to several pods in spite of its affinity")

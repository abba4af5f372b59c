"""Step 4: Services have names."""

from ebpf_lb.lessons.demo import manifest
from ebpf_lb.lessons.tutorial.stage import Stage

TITLE = "Discovery by DNS"
TEXT = (
    "Cluster DNS is itself a Service, whose address stands in every pod's resolv.conf; it follows "
    "the API server, so a name is there as soon as its Service is. A Service's name leads to its "
    "ClusterIP, a headless one's to all its pods, an ExternalName to another name; a StatefulSet's "
    "pods have names of their own."
)
_MORE = """
apiVersion: apps/v1
kind: StatefulSet
metadata: {name: web}
spec:
  serviceName: nginx
  replicas: 2
  selector: {matchLabels: {app: nginx}}
  template:
    metadata: {labels: {app: nginx}}
    spec:
      containers:
        - name: c
          image: registry.k8s.io/e2e-test-images/agnhost:2.53
          args: [serve-hostname]
          ports: [{name: http, containerPort: 9376}]
---
apiVersion: v1
kind: Service
metadata: {name: nginx}
spec:
  clusterIP: None
  ipFamilyPolicy: PreferDualStack
  selector: {app: nginx}
  ports: [{name: http, port: 80, targetPort: http}]
---
apiVersion: v1
kind: Service
metadata: {name: old-name}
spec: {type: ExternalName, externalName: hostnames.%s.svc.cluster.local}
"""


def act(stage: Stage) -> None:
    stage.apply(manifest().read_text())
    stage.apply(_MORE % stage.namespace)
    pods = stage.ready_pods(5)
    client = pods[0]
    service = stage.get("services", "hostnames")["spec"]["clusterIPs"]
    both = [stage.get("pods", f"web-{n}")["status"]["podIPs"] for n in (0, 1)]
    headless = {entry["ip"] for entries in both for entry in entries}
    domain = f"{stage.namespace}.svc.cluster.local"

    resolv = stage.run(client, "cat", "/etc/resolv.conf")
    stage.check(domain in resolv and "ndots:5" in resolv, "resolv.conf names no cluster DNS")

    stage.say("\nA Service has its ClusterIPs, by its bare name in its own namespace:")
    _resolves(stage, client, "hostnames", set(service))
    _resolves(stage, client, f"hostnames.{domain}", set(service))
    stage.say("\nA headless one has all its pods:")
    _resolves(stage, client, "nginx", headless)
    stage.say("\nA pod of a StatefulSet has a name of its own:")
    _resolves(stage, client, f"web-1.nginx.{domain}", {entry["ip"] for entry in both[1]})
    stage.say("\nAny pod has one with dashes:")
    address = stage.get("pods", client)["status"]["podIP"]
    dashed = address.replace(".", "-").replace(":", "-")
    _resolves(stage, client, f"{dashed}.{stage.namespace}.pod.cluster.local", {address})
    stage.say("\nAn ExternalName is another name for something:")
    _resolves(stage, client, "old-name", set(service))
    stage.say("\nAnd from an address back to the name:")
    back = stage.run(client, "getent", "hosts", service[0])
    stage.check(f"hostnames.{domain}" in back, "the address has no name")


def _resolves(stage: Stage, pod: str, name: str, expected: set[str]) -> None:
    def look() -> bool:
        found = stage.run(pod, "getent", "ahosts", name, quiet=True)
        return {line.split()[0] for line in found.splitlines() if line} == expected

    stage.wait(f"{name} leads to {', '.join(sorted(expected))}", look)
    stage.run(pod, "getent", "ahosts", name)

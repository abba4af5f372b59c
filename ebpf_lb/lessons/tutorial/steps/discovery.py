"""Step 4: Services have names."""

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from ebpf_lb.lab.names import client_interfaces
from ebpf_lb.lessons.demo import manifest
from ebpf_lb.lessons.tutorial.names import addresses, pod_addresses, records
from ebpf_lb.lessons.tutorial.stage import Stage

TITLE = "Discovery by DNS"
TEXT = (
    "Cluster DNS is itself a Service, whose address stands in every pod's resolv.conf; it follows "
    "the API server, so a name is there as soon as its Service is. A Service's name leads to its "
    "ClusterIP, a headless one's to all its pods, an ExternalName to another name; some pods have "
    "names of their own, and what is not the cluster's is asked of a name server outside."
)
_OUTSIDE, _OUTSIDE_ADDRESS = "www.example.org", "203.0.113.7"
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
metadata: {name: members}
spec:
  clusterIP: None
  publishNotReadyAddresses: true
  ipFamilyPolicy: PreferDualStack
  selector: {app: nginx}
  ports: [{name: http, port: 80, targetPort: http}]
---
apiVersion: v1
kind: Pod
metadata: {name: single, labels: {app: nginx}}
spec:
  hostname: busy
  subdomain: nginx
  containers:
    - name: c
      image: registry.k8s.io/e2e-test-images/agnhost:2.53
      args: [serve-hostname]
      ports: [{name: http, containerPort: 9376}]
---
apiVersion: v1
kind: Service
metadata: {name: old-name}
spec: {type: ExternalName, externalName: hostnames.%s.svc.cluster.local}
"""
_RESOLVER = """
apiVersion: v1
kind: Pod
metadata: {name: resolver}
spec:
  dnsPolicy: Default
  containers:
    - name: c
      image: coredns
      args: ["--upstream=%s"]
      ports: [{containerPort: 53, protocol: UDP}, {containerPort: 53, protocol: TCP}]
"""
_CURIOUS = """
apiVersion: v1
kind: Pod
metadata: {name: curious}
spec:
  dnsPolicy: None
  dnsConfig:
    nameservers: ["%s"]
    searches: [%s, svc.cluster.local, cluster.local]
    options: [{name: ndots, value: "5"}]
  containers: [{name: c, image: registry.k8s.io/e2e-test-images/agnhost:2.53}]
"""


def act(stage: Stage) -> None:
    stage.check(stage.lab.options.dns, "this lab has no cluster DNS: bring one up without --no-dns")
    stage.apply(manifest().read_text())
    stage.apply(_MORE % stage.namespace)
    pods = stage.ready_pods(6)
    client = next(pod for pod in pods if pod.startswith("hostnames-"))
    domain = f"{stage.namespace}.svc.cluster.local"
    resolv = stage.run(client, "cat", "/etc/resolv.conf")
    stage.check(domain in resolv and "ndots:5" in resolv, "resolv.conf names no cluster DNS")

    service = stage.get("services", "hostnames")["spec"]["clusterIPs"]
    own = {name: pod_addresses(stage, name) for name in ("web-0", "web-1", "single", client)}
    _a_service(stage, client, domain, service)
    _headless(stage, client, [own["web-0"], own["web-1"], own["single"]])
    _own_names(stage, client, domain, own)
    _ports(stage, client, domain, len(own[client]))
    _dashed(stage, client, own[client][0])
    _not_ready(stage, client)
    _alias(stage, client, domain, service)
    _reverse(stage, client, domain, service)
    _outside(stage, service)


def _a_service(stage: Stage, client: str, domain: str, service: list[str]) -> None:
    stage.tell(
        "A Service has its ClusterIPs, by its bare name in its own namespace or by all of it:"
    )
    records(stage, client, {"hostnames": addresses(service)})
    records(stage, client, {f"hostnames.{domain}.": addresses(service)})
    stage.say("\nAny program finds them, by the C library and the search list:")
    answer = stage.run(client, "curl", "-sg", "-w", "\\n", "http://hostnames/").strip()
    stage.check(answer.startswith("hostnames-"), f"{answer!r} answered at http://hostnames/")


def _headless(stage: Stage, client: str, behind: list[list[str]]) -> None:
    stage.say("\nA headless Service has all its pods:")
    records(stage, client, {"nginx": set().union(*map(addresses, behind))})


def _own_names(stage: Stage, client: str, domain: str, own: dict[str, list[str]]) -> None:
    stage.say(
        "\nEach pod of a StatefulSet has a name of its own there, and so has one with hostname and"
    )
    stage.say("subdomain:")
    records(stage, client, {f"web-1.nginx.{domain}.": addresses(own["web-1"])})
    records(stage, client, {f"busy.nginx.{domain}.": addresses(own["single"])})


def _ports(stage: Stage, client: str, domain: str, families: int) -> None:
    stage.say("\nSRV records tell the port and these names:")
    names = [f"{name}.nginx.{domain}." for name in ("web-0", "web-1", "busy")]
    ports = {f"SRV 0 {100 // (3 * families)} 9376 {name}" for name in names}
    records(stage, client, {f"_http._tcp.nginx.{domain}.": ports})


def _dashed(stage: Stage, client: str, address: str) -> None:
    stage.say("\nAny pod has a name that is its address with dashes:")
    dashed = address.replace(".", "-").replace(":", "-")
    name = f"{dashed}.{stage.namespace}.pod.cluster.local."
    records(stage, client, {name: addresses([address])})


def _not_ready(stage: Stage, client: str) -> None:
    stage.tell(
        "A pod that is not ready loses its name, but not with publishNotReadyAddresses, by which "
        "members of a group find each other before they are ready:"
    )
    stage.set_ready("web-0", False)
    ready = [*pod_addresses(stage, "web-1"), *pod_addresses(stage, "single")]
    records(stage, client, {"nginx": addresses(ready)})
    everyone = [*ready, *pod_addresses(stage, "web-0")]
    records(stage, client, {"members": addresses(everyone)})
    stage.set_ready("web-0", True)


def _alias(stage: Stage, client: str, domain: str, service: list[str]) -> None:
    stage.say("\nAn ExternalName is another name for something, a CNAME:")
    alias = {f"CNAME hostnames.{domain}."} | addresses(service)
    records(stage, client, {"old-name": alias})


def _reverse(stage: Stage, client: str, domain: str, service: list[str]) -> None:
    stage.say("\nAnd from an address back to the name:")
    records(stage, client, {service[0]: {f"PTR hostnames.{domain}."}})


def _outside(stage: Stage, service: list[str]) -> None:
    """By a name server of the step's own: the cluster's stays as it is."""
    stage.tell(
        "What is not the cluster's, cluster DNS asks of a name server outside if it has one. Here "
        f"the machine outside runs one that knows {_OUTSIDE}; the pod resolver is a cluster DNS "
        "that asks it, and the pod curious asks resolver:"
    )
    with _name_server(stage) as address:
        stage.apply(_RESOLVER % address)
        stage.ready_pods(7)
        [server, *_] = pod_addresses(stage, "resolver")
        stage.apply(_CURIOUS % (server, f"{stage.namespace}.svc.cluster.local"))
        stage.ready_pods(8)
        records(stage, "curious", {_OUTSIDE: {f"A {_OUTSIDE_ADDRESS}"}})
        records(stage, "curious", {"hostnames": addresses(service)})


@contextmanager
def _name_server(stage: Stage) -> Iterator[str]:
    """On the machine outside, meanwhile; its address there."""
    module = "ebpf_lb.lessons.tutorial.name_server"
    words = [sys.executable, "-m", module, _OUTSIDE, _OUTSIDE_ADDRESS]
    with stage.lab.popen("client", words, stdout=subprocess.PIPE) as process:
        try:
            assert process.stdout is not None
            process.stdout.readline()
            yield str(client_interfaces(1, stage.lab.options.families)[0].ip)
        finally:
            process.kill()

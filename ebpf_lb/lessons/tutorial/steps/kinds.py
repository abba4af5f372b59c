"""Step 6: what else a Service can be."""

import random
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import ebpf_lb
from ebpf_lb.lab.names import SERVICES
from ebpf_lb.lab.objects.manifest import ManifestError
from ebpf_lb.lessons.tutorial.names import addresses, records
from ebpf_lb.lessons.tutorial.stage import Stage

TITLE = "What else a Service can be: chosen addresses, no pods, no address, affinity"
TEXT = (
    "A Service may choose its ClusterIP and NodePort itself, lead to a database that is not a pod "
    "at all, or be another name for something. Without a ClusterIP it is just a name for its pods, "
    "and with session affinity a client keeps its pod until it has been away for long enough."
)
_TIMEOUT_S = 2
_TRIES = 5
_APP = """
apiVersion: apps/v1
kind: Deployment
metadata: {name: app}
spec:
  replicas: 3
  selector: {matchLabels: {app: app}}
  template:
    metadata: {labels: {app: app}}
    spec:
      containers:
        - name: c
          image: registry.k8s.io/e2e-test-images/agnhost:2.53
          args: [serve-hostname]
          ports: [{containerPort: 9376}]
"""
_OWN = """
apiVersion: v1
kind: Service
metadata: {name: chosen}
spec:
  type: NodePort
  clusterIP: "%(address)s"
  selector: {app: app}
  ports: [{port: 80, targetPort: 9376, nodePort: %(port)d}]
"""
_DATABASE = """
apiVersion: v1
kind: Service
metadata: {name: database}
spec:
  ports: [{name: sql, port: 5432}]
---
apiVersion: v1
kind: Endpoints
metadata: {name: database}
subsets:
  - addresses: [{ip: "%s"}]
    ports: [{name: sql, port: 5432}]
"""
_NAMES = """
apiVersion: v1
kind: Service
metadata: {name: alias}
spec: {type: ExternalName, externalName: %s}
---
apiVersion: v1
kind: Service
metadata: {name: headless}
spec:
  clusterIP: None
  selector: {app: app}
  ports: [{port: 9376}]
"""
_STICKY = """
apiVersion: v1
kind: Service
metadata: {name: sticky}
spec:
  sessionAffinity: %s
  selector: {app: app}
  ports: [{port: 80, targetPort: 9376}]
"""
_CLIENT_IP = f"ClientIP\n  sessionAffinityConfig: {{clientIP: {{timeoutSeconds: {_TIMEOUT_S}}}}}"
_DATABASE_NAME = "the-database"
# Another run of this step may have the port just now, with the same server.
_DATABASE_SERVER = """
import sys, time
sys.path[0] = %r
from runpy import run_module
while True:
    try:
        run_module("ebpf_lb.containers.podserver", run_name="__main__", alter_sys=True)
    except OSError:
        time.sleep(0.3)
"""


def act(stage: Stage) -> None:
    stage.apply(_APP)
    pods = stage.ready_pods(3)
    _chosen(stage, pods)
    _database(stage)
    _names(stage, pods)
    _affinity(stage, pods)


def _choose(stage: Stage) -> tuple[str, int]:
    """A ClusterIP and a NodePort that nobody has."""
    services = stage.lab.client.get("/api/v1/services")["items"]
    addresses = {a for s in services for a in s["spec"].get("clusterIPs") or ()}
    ports = {p.get("nodePort") for s in services for p in s["spec"].get("ports") or ()}
    [network, *_] = SERVICES.networks(stage.lab.options.families)
    last = (str(network[-number]) for number in range(2, 1000))
    return (
        random.choice([address for address in last if address not in addresses]),
        random.choice([port for port in range(30000, 32768) if port not in ports]),
    )


def _chosen(stage: Stage, pods: list[str]) -> None:
    stage.say("\nA Service that says itself which ClusterIP and which NodePort it wants:")
    for left in reversed(range(_TRIES)):
        address, port = _choose(stage)
        try:
            stage.apply(_OWN % {"address": address, "port": port})
            break
        except ManifestError:  # somebody was given it in the meantime
            if not left:
                raise
    stage.show(f"it is {address}, and {port} on every node")
    node = stage.lab.nodes()[-1]
    for host, url in (
        ("node1", stage.url(address)),
        ("client", stage.url(node.addresses[0], port)),
    ):
        stage.served_by(host, url, pods)
        answer = stage.run(host, "curl", "-sg", url)
        stage.check(answer in pods, f"{answer!r} answered")
    _taken(stage, address, port)


def _taken(stage: Stage, address: str, port: int) -> None:
    stage.say("\nAnother one that wants the same is refused:")
    refusal = stage.refused(_OWN.replace("chosen", "second") % {"address": address, "port": port})
    stage.check("already allocated" in refusal, "two Services got the same address")


@contextmanager
def _database_outside(stage: Stage) -> Iterator[str]:
    """A server on the machine outside, meanwhile; its address there."""
    own = stage.run("client", "sh", "-c", "ip -o addr show dev eth0 scope global", quiet=True)
    wanted = "inet6" if stage.lab.options.family == "ipv6" else "inet"
    [line, *_] = [line for line in own.splitlines() if f" {wanted} " in line]
    package = str(Path(ebpf_lb.__file__).parents[1])
    server = _DATABASE_SERVER % package
    words = [sys.executable, "-S", "-s", "-c", server, f"--name={_DATABASE_NAME}", "--tcp=5432"]
    with stage.lab.popen("client", words, stdout=subprocess.DEVNULL) as process:
        try:
            yield line.split()[3].partition("/")[0]
        finally:
            process.kill()


def _database(stage: Stage) -> None:
    with _database_outside(stage) as address:
        stage.say(
            f"\nA database that is not a pod: it serves at {address}, outside. A Service without "
            "selector, and\nEndpoints made by hand:"
        )
        stage.apply(_DATABASE % address)
        url = stage.url(stage.service_address("database"), 5432)
        pod = stage.ready_pods(3)[0]
        stage.wait("the database answers", lambda: stage.ask(pod, url) == [_DATABASE_NAME])
        stage.run(pod, "curl", "-sg", url)
        slices = stage.get("endpointslices")["items"]
        mine = [s for s in slices if s["metadata"]["name"].startswith("database-")]
        stage.check(mine, "the Endpoints were not mirrored")
        for one in mine:
            found = ", ".join(e["addresses"][0] for e in one["endpoints"])
            stage.show(f"mirrored into EndpointSlice {one['metadata']['name']}: {found}")


def _names(stage: Stage, pods: list[str]) -> None:
    if not stage.lab.options.dns:
        stage.say("\n(This lab has no cluster DNS: ExternalName and headless are names only.)")
        return
    domain = f"{stage.namespace}.svc.cluster.local"
    stage.say("\nAn ExternalName has no address, only another name:")
    stage.apply(_NAMES % f"chosen.{domain}")
    asker = pods[0]
    target = stage.service_address("chosen")
    alias = {f"CNAME chosen.{domain}."} | addresses([target])
    records(stage, asker, {"alias": alias})
    stage.say("\nA headless one has no ClusterIP, and its name is all its pods:")
    records(stage, asker, {"headless": addresses([p["status"]["podIP"] for p in stage.pods()])})
    answer = stage.run(asker, "curl", "-sg", "http://headless:9376/")
    stage.check(answer in pods, f"{answer!r} answered")


def _affinity(stage: Stage, pods: list[str]) -> None:
    stage.say("\nSession affinity: without it, and with it, 20 connections of one client:")
    stage.apply(_STICKY % "None")
    url = stage.url(stage.service_address("sticky"))
    stage.served_by("node1", url, pods)
    stage.count("node1", url, 20)
    stage.apply(_STICKY % _CLIENT_IP)
    stage.wait("one pod for one client", lambda: len(set(stage.ask("node1", url, 20))) == 1)
    counts = stage.count("node1", url, 20)
    stage.check(len(counts) == 1, "a client came to several pods in spite of its affinity")
    _forgotten(stage, url, pods)


def _forgotten(stage: Stage, url: str, pods: list[str]) -> None:
    """By several clients: one that is forgotten may come to the same pod again by chance."""
    stage.say(
        f"\nClients that stay away for more than {_TIMEOUT_S} s are forgotten, and choose anew:"
    )
    clients = [*(node.name for node in stage.lab.nodes()), *pods]

    def chosen() -> dict[str, str]:
        return {client: "".join(stage.ask(client, url)) for client in clients}

    def others() -> bool:
        before = chosen()
        time.sleep(_TIMEOUT_S + 0.5)
        after = chosen()
        for client in clients:
            same = before[client] == after[client]
            stage.show(
                f"{client}: {before[client]}, {'again' if same else f'then {after[client]}'}"
            )
        stage.check(set(after.values()) <= set(pods), "a client got no answer")
        return before != after

    stage.wait("other pods after a pause", others)

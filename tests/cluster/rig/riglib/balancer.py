"""A small load balancer in the router: what a cloud does for Services of type LoadBalancer.

Gives each one addresses and routes those to the nodes, packets unchanged: to all nodes that are
ready or whose proxy says that it is well (a kubelet's restart moves no connection), or, with
externalTrafficPolicy Local, to those whose health check port answers 200. Flows are spread by
addresses and ports. Runs as a process in the router's network namespace."""

import http.client
import json
import ssl
import subprocess
import sys
import time
import urllib.request

from . import conf, pki
from .proc import in_netns, start

FINALIZER = "service.kubernetes.io/load-balancer-cleanup"


class Api:
    def __init__(self):
        self.context = ssl.create_default_context(cafile=pki.DIR / "ca.crt")
        self.context.load_cert_chain(pki.DIR / "admin.crt", pki.DIR / "admin.key")
        self.connection = None

    def call(self, method, path, body=None):
        if self.connection is None:
            self.connection = http.client.HTTPSConnection(
                f"{conf.UNDERLAY[0]}{conf.CONTROL}", 6443, context=self.context, timeout=10
            )
        try:
            self.connection.request(
                method,
                path,
                json.dumps(body) if body else None,
                {"Content-Type": "application/merge-patch+json"},
            )
            answer = self.connection.getresponse()
            return answer.status, json.loads(answer.read())
        except (OSError, http.client.HTTPException, ValueError):
            self.connection.close()
            self.connection = None
            raise


def path_of(service):
    meta = service["metadata"]
    return f"/api/v1/namespaces/{meta['namespace']}/services/{meta['name']}"


def healthy(address, port):
    host = f"[{address}]" if ":" in address else address
    try:
        with urllib.request.urlopen(f"http://{host}:{port}/healthz", timeout=1) as answer:
            return answer.status == 200
    except OSError:
        return False


class Balancer:
    def __init__(self):
        self.api = Api()
        self.given = {}  # uid -> [addresses]
        self.routes = {}  # address -> [next hops]
        self.last = 0

    def new_addresses(self, families):
        taken = {address for addresses in self.given.values() for address in addresses}
        for _ in range(250):
            self.last = self.last % 250 + 1
            both = {
                "IPv4": f"{conf.BALANCERS[0]}{self.last}",
                "IPv6": f"{conf.BALANCERS[2]}{self.last:x}",
            }
            addresses = [both[family] for family in families]
            if not taken & set(addresses):
                return addresses
        raise RuntimeError("no address left")

    def route(self, address, hops):
        if self.routes.get(address, []) == hops:
            return
        ip = ["ip", "-6"] if ":" in address else ["ip"]
        if hops:
            words = [word for hop in hops for word in ("nexthop", "via", hop)]
            subprocess.run([*ip, "route", "replace", address, *words], check=True)
            self.routes[address] = hops
        else:
            subprocess.run([*ip, "route", "del", address], check=False)
            self.routes.pop(address, None)
        print(address, "->", hops, flush=True)

    def release(self, uid):
        for address in self.given.pop(uid, []):
            self.route(address, [])

    def hops(self, service, address, nodes):
        spec = service["spec"]
        ips = [ip for node in nodes for ip in node if (":" in ip) == (":" in address)]
        if spec.get("externalTrafficPolicy") == "Local":
            ips = [ip for ip in ips if healthy(ip, spec.get("healthCheckNodePort"))]
        if spec.get("sessionAffinity") == "ClientIP":
            ips = ips[:1]  # each node keeps its own affinity: one client, one node
        return ips

    def serve(self, service, nodes):
        meta, spec = service["metadata"], service["spec"]
        uid, finalizers = meta["uid"], meta.get("finalizers", [])
        wanted = (
            spec["type"] == "LoadBalancer"
            and not spec.get("loadBalancerClass")
            and not meta.get("deletionTimestamp")
        )
        if wanted:
            if FINALIZER not in finalizers:
                self.api.call(
                    "PATCH",
                    path_of(service),
                    {
                        "metadata": {
                            "finalizers": [*finalizers, FINALIZER],
                            "resourceVersion": meta["resourceVersion"],
                        }
                    },
                )
            shown = [
                item.get("ip")
                for item in service.get("status", {}).get("loadBalancer", {}).get("ingress", [])
            ]
            if uid not in self.given:
                mine = shown and all(
                    ip and ip.startswith((conf.BALANCERS[0], conf.BALANCERS[2])) for ip in shown
                )
                self.given[uid] = shown if mine else self.new_addresses(spec["ipFamilies"])
            for address in self.given[uid]:
                self.route(address, self.hops(service, address, nodes))
            if not shown:
                self.api.call(
                    "PATCH",
                    path_of(service) + "/status",
                    {
                        "status": {
                            "loadBalancer": {
                                "ingress": [
                                    {"ip": address, "ipMode": "VIP"} for address in self.given[uid]
                                ]
                            }
                        }
                    },
                )
        elif FINALIZER in finalizers:
            self.release(uid)
            self.api.call(
                "PATCH",
                path_of(service) + "/status",
                {"status": {"loadBalancer": {"ingress": None}}},
            )
            self.api.call(
                "PATCH",
                path_of(service),
                {"metadata": {"finalizers": [name for name in finalizers if name != FINALIZER]}},
            )

    def round(self):
        nodes = []
        for node in self.api.call("GET", "/api/v1/nodes")[1]["items"]:
            status = node["status"]
            ips = [a["address"] for a in status.get("addresses", []) if a["type"] == "InternalIP"]
            conditions = {c["type"]: c["status"] for c in status.get("conditions", [])}
            if ips and (conditions.get("Ready") == "True" or healthy(ips[0], 10256)):
                nodes.append(ips)
        services = self.api.call("GET", "/api/v1/services")[1]["items"]
        for service in services:
            self.serve(service, nodes)
        for uid in set(self.given) - {service["metadata"]["uid"] for service in services}:
            self.release(uid)


def main():
    balancer = Balancer()
    while True:
        try:
            balancer.round()
        except Exception as error:  # the API server may be away; try again
            print(type(error).__name__, error, flush=True)
        time.sleep(0.7)


def up(state):
    start(
        state,
        "balancer",
        [
            *in_netns("router"),
            sys.executable,
            "-B",
            "-c",
            f"import sys; sys.path.insert(0, {str(conf.HERE)!r})\n"
            "from riglib import balancer; balancer.main()",
        ],
    )

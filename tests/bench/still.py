"""An API server in which nothing happens: very many Services, made before anybody asks, so that
what a start at that size takes is the asker's.

    python -m tests.bench.still PORT SERVICES ENDPOINTS NODE ADDRESS,ADDRESS

Prints a line when it serves: over HTTP, without tokens, lists in pages, and watches that say
nothing.
"""

from __future__ import annotations

import json
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

Json = dict[str, Any]
_VERSION = "1000"
_FAMILIES = ("IPv4", "IPv6")
_SILENT_S = 3600
_NAMESPACES = 50


def _address(family: str, first: tuple[str, str], number: int) -> str:
    if family == "IPv4":
        return f"{first[0]}.{number >> 16}.{number >> 8 & 255}.{number & 255}"
    return f"{first[1]}::{number >> 16:x}:{number & 0xFFFF:x}"


def _service(number: int) -> Json:
    ips = [_address(family, ("10", "fd00:10:96"), (96 << 16) + number + 16) for family in _FAMILIES]
    return {
        "metadata": _named(f"service-{number}", number),
        "spec": {"type": "ClusterIP", "clusterIP": ips[0], "clusterIPs": ips,
                 "ipFamilies": list(_FAMILIES), "ipFamilyPolicy": "RequireDualStack",
                 "sessionAffinity": "None", "internalTrafficPolicy": "Cluster",
                 "selector": {"app": f"service-{number}"},
                 "ports": [{"name": "http", "protocol": "TCP", "port": 80, "targetPort": 8080}]},
        "status": {"loadBalancer": {}},
    }  # fmt: skip


def _slice(number: int, family: str, endpoints: int) -> Json:
    name = f"service-{number}"
    metadata = _named(f"{name}-{family.lower()}", number)
    metadata["labels"] = {"kubernetes.io/service-name": name}
    first = number * endpoints
    return {
        "metadata": metadata,
        "addressType": family,
        "endpoints": [
            {
                "addresses": [_address(family, ("10", "fd00:10:244"), (128 << 16) + first + one)],
                "conditions": {"ready": True, "serving": True, "terminating": False},
                "nodeName": f"node{1 + (first + one) % 100}",
                "targetRef": {"kind": "Pod", "name": f"{name}-{one}"},
            }
            for one in range(endpoints)
        ],
        "ports": [{"name": "http", "protocol": "TCP", "port": 8080}],
    }


def _named(name: str, number: int) -> Json:
    return {
        "name": name,
        "namespace": f"namespace-{number % _NAMESPACES}",
        "uid": f"{number:08x}-0000-4000-8000-000000000000",
        "resourceVersion": str(number + 1),
        "creationTimestamp": "2026-01-01T00:00:00Z",
    }


class Still:
    """Objects by path, encoded once."""

    def __init__(self, services: int, endpoints: int, node: str, addresses: list[str]) -> None:
        spec_of_node = {"podCIDR": "10.128.0.0/9"}
        about_node = {
            "metadata": {"name": node, "resourceVersion": "1"},
            "spec": spec_of_node,
            "status": {"addresses": [{"type": "InternalIP", "address": one} for one in addresses]},
        }
        collections: dict[str, tuple[str, list[Json]]] = {
            "/api/v1/nodes": ("NodeList", [about_node]),
            "/api/v1/services": ("ServiceList", [_service(one) for one in range(services)]),
            "/apis/discovery.k8s.io/v1/endpointslices": (
                "EndpointSliceList",
                [_slice(one, of, endpoints) for one in range(services) for of in _FAMILIES],
            ),
            "/apis/networking.k8s.io/v1/servicecidrs": ("ServiceCIDRList", []),
        }
        self._encoded = {
            path: (kind, [json.dumps(one).encode() for one in items])
            for path, (kind, items) in collections.items()
        }
        self._single = {f"/api/v1/nodes/{node}": json.dumps(
            {"apiVersion": "v1", "kind": "Node", **about_node}).encode()}  # fmt: skip

    def answer(self, path: str, query: dict[str, str]) -> tuple[int, bytes]:
        if single := self._single.get(path):
            return 200, single
        if path not in self._encoded:
            return 404, b'{"kind":"Status","code":404,"reason":"NotFound","status":"Failure"}'
        kind, items = self._encoded[path]
        start = int(query.get("continue", 0))
        end = start + (int(query.get("limit", 0)) or len(items))
        more = f'"continue":"{end}",' if end < len(items) else ""
        version = path.split("/")[2:-1]
        head = (
            f'{{"kind":"{kind}","apiVersion":"{"/".join(version)}",'
            f'"metadata":{{{more}"resourceVersion":"{_VERSION}"}},"items":['
        )
        return 200, head.encode() + b",".join(items[start:end]) + b"]}"

    def serve(self, port: int) -> ThreadingHTTPServer:
        still = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                url = urlsplit(self.path)
                query = {name: values[0] for name, values in parse_qs(url.query).items()}
                if "sendInitialEvents" in query:  # as servers before 1.32
                    self._say(422, b'{"kind":"Status","apiVersion":"v1","status":"Failure",'
                                   b'"reason":"Invalid","code":422}')  # fmt: skip
                elif query.get("watch") in ("true", "1"):
                    self.send_response(200)
                    self.send_header("Content-Type", "application/json")
                    self.send_header("Transfer-Encoding", "chunked")
                    self.end_headers()
                    self.wfile.flush()
                    threading.Event().wait(_SILENT_S)
                else:
                    self._say(*still.answer(url.path, query))

            def do_POST(self) -> None:  # Events
                self.rfile.read(int(self.headers.get("Content-Length", "0")))
                self._say(201, b"{}")

            do_PATCH = do_POST

            def _say(self, status: int, body: bytes) -> None:
                self.send_response(status)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: object) -> None:
                pass

        made = ThreadingHTTPServer(("127.0.0.1", port), Handler)
        made.daemon_threads = True
        return made


def main() -> None:
    port, services, endpoints, node, addresses = sys.argv[1:]
    server = Still(int(services), int(endpoints), node, addresses.split(",")).serve(int(port))
    print("serving", flush=True)
    server.serve_forever()


if __name__ == "__main__":
    main()

"""Step 7: one address for many web applications."""

import base64
import json
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

import trustme

from ebpf_lb.apiserver.kinds import INGRESS
from ebpf_lb.containers import ingress
from ebpf_lb.containers.ingress.nginx import program
from ebpf_lb.lessons.tutorial.stage import Stage, is_ready

TITLE = "Ingress: many web applications behind one address"
TEXT = (
    "Services know addresses and ports; an Ingress knows names and paths, and which Service is "
    "behind each. An ingress controller, here nginx in a pod, reads the Ingresses, ends TLS with "
    "the certificates from Secrets, and is itself reached by a LoadBalancer Service that keeps the "
    "client's address."
)
HOST = "cafe.example.com"
DEPLOY = Path(ingress.__file__).with_name("deploy.yaml")
_NAMESPACE, _SERVICE = "ingress-nginx", "ingress-nginx-controller"
_DOWNLOAD_BYTES = 64 << 20  # more than all buffers on the way take
_APP = """
apiVersion: apps/v1
kind: Deployment
metadata: {name: %(app)s}
spec:
  replicas: 2
  selector: {matchLabels: {app: %(app)s}}
  template:
    metadata: {labels: {app: %(app)s}}
    spec:
      containers:
        - name: %(app)s
          image: registry.k8s.io/e2e-test-images/agnhost:2.53
          args: [netexec]
          ports: [{name: http, containerPort: 8080}]
---
apiVersion: v1
kind: Service
metadata: {name: %(app)s-svc}
spec:
  selector: {app: %(app)s}
  ports: [{name: http, port: 80, targetPort: http}]
---
"""
_INGRESS = """
apiVersion: networking.k8s.io/v1
kind: Ingress
metadata:
  name: cafe-ingress
  annotations: {nginx.ingress.kubernetes.io/rewrite-target: /}
spec:
  ingressClassName: nginx
  tls: [{hosts: [%(host)s], secretName: cafe-secret}]
  rules:
    - host: %(host)s
      http:
        paths:
          - path: /tea
            pathType: Prefix
            backend: {service: {name: tea-svc, port: {number: 80}}}
          - path: /coffee
            pathType: Prefix
            backend: {service: {name: coffee-svc, port: {name: http}}}
---
apiVersion: networking.k8s.io/v1
kind: Ingress
metadata: {name: cafe-plain}
spec:
  ingressClassName: nginx
  rules:
    - host: %(host)s
      http:
        paths:
          - path: /header
            pathType: Exact
            backend: {service: {name: tea-svc, port: {number: 80}}}
          - path: /source
            pathType: Exact
            backend: {service: {name: tea-svc, port: {number: 80}}}
"""


class Guest:
    """The client outside, who asks for HOST where the Service's address is."""

    def __init__(self, stage: Stage, address: str, authority: Path, port: int = 443) -> None:
        self._stage = stage
        self._place = f"[{address}]" if ":" in address else address
        self._port = port
        self.authority = authority

    def words(self, path: str, *options: str, scheme: str = "https") -> list[str]:
        port = self._port if scheme == "https" else 80
        trust = ["--cacert", str(self.authority)] if scheme == "https" else []
        resolve = ["--resolve", f"{HOST}:{port}:{self._place}"]
        shown = f":{port}" if port not in (443, 80) else ""
        url = f"{scheme}://{HOST}{shown}{path}"
        return ["curl", "-s", f"-m{self._stage.answer_s}", *options, *resolve, *trust, url]

    def told(self, path: str, answer: str) -> None:
        """Shows an answer that came already."""
        self._stage.typed("client", *self.words(path))
        self._stage.show(answer)

    def ask(self, path: str, *options: str, scheme: str = "https", quiet: bool = False) -> str:
        words = self.words(path, *options, scheme=scheme)
        return self._stage.run("client", *words, quiet=quiet).strip()


def act(stage: Stage) -> None:
    with _controller(stage) as address, TemporaryDirectory(prefix="cafe-") as folder:
        guest = Guest(stage, address, Path(folder) / "ca.crt")
        _open_cafe(stage, Path(folder), address)
        _paths(stage, guest)
        _plain_http(stage, guest)
        _certificate(stage, guest)
        _nowhere(stage, guest)
        _client_address(stage, guest)
        _reload(stage, guest)
        _default_backend(stage, guest)


@contextmanager
def _controller(stage: Stage) -> Iterator[str]:
    """It runs meanwhile; its address outside. One that was there before stays."""
    program()  # says what to do where there is none
    stage.say("The controller, with its IngressClass and its Service:")
    found = stage.lab.client.get("/api/v1/namespaces")["items"]
    was_there = any(each["metadata"]["name"] == _NAMESPACE for each in found)
    stage.apply(DEPLOY.read_text(), namespace=_NAMESPACE)

    def pods_are_ready() -> bool:
        pods = stage.lab.client.get(f"/api/v1/namespaces/{_NAMESPACE}/pods")["items"]
        return bool(pods) and all(map(is_ready, pods))

    def given() -> str:
        service = stage.lab.client.get(f"/api/v1/namespaces/{_NAMESPACE}/services/{_SERVICE}")
        status = (service.get("status") or {}).get("loadBalancer") or {}
        return str((status.get("ingress") or [{}])[0].get("ip", ""))

    try:
        address = stage.wait("the cloud gives the controller an address", given)
        stage.wait("the ingress controller is ready", pods_are_ready)
        stage.table("services", f"/api/v1/namespaces/{_NAMESPACE}/services", _NAMESPACE)
        yield address
    finally:
        if not was_there:
            stage.lab.client.delete(f"/api/v1/namespaces/{_NAMESPACE}")
            stage.lab.client.delete("/apis/networking.k8s.io/v1/ingressclasses/nginx")


def _open_cafe(stage: Stage, folder: Path, address: str) -> None:
    stage.say(f"\nA café: two applications, a certificate for {HOST} by a CA made just now, and")
    stage.say("two Ingresses that say which path leads to which Service:")
    authority = trustme.CA(organization_name="ebpf-lb tutorial")
    (folder / "ca.crt").write_bytes(authority.cert_pem.bytes())
    made = authority.issue_cert(HOST, organization_name="Cafe", common_name=HOST)
    parts = {
        "tls.crt": b"".join(pem.bytes() for pem in made.cert_chain_pems),
        "tls.key": made.private_key_pem.bytes(),
    }
    secret = {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": "cafe-secret"},
        "type": "kubernetes.io/tls",
        "data": {key: base64.b64encode(pem).decode() for key, pem in parts.items()},
    }
    apps = "".join(_APP % {"app": app} for app in ("tea", "coffee"))
    stage.apply(json.dumps(secret), shown=False)  # whose key is nobody else's
    stage.apply(f"{apps}{_INGRESS % {'host': HOST}}")
    stage.ready_pods(4)

    def has_address() -> bool:
        status = stage.lab.client.get(INGRESS.path(stage.namespace, "cafe-ingress"))["status"]
        given = status["loadBalancer"].get("ingress") or []
        return address in [one["ip"] for one in given]

    stage.wait("the Ingress has the controller's address", has_address)
    stage.table("ingresses", INGRESS.collection_path(stage.namespace))


def _pods_of(stage: Stage, app: str) -> set[str]:
    names = {pod["metadata"]["name"] for pod in stage.pods()}
    return {name for name in names if name.startswith(f"{app}-")}


def _answers(guest: Guest, path: str, times: int) -> set[str]:
    """Who answered, each time on a new connection, up to the first that got no answer."""
    found = set()
    for _ in range(times):
        answer = guest.ask(path, quiet=True)
        found.add(answer)
        if not answer:
            break
    return found


def _all_answer(guest: Guest, path: str, pods: set[str]) -> bool:
    return _answers(guest, path, 5 * len(pods)) == pods


def _paths(stage: Stage, guest: Guest) -> None:
    stage.say("\nOne name, two paths, two applications:")
    for app in ("tea", "coffee"):
        pods = _pods_of(stage, app)
        stage.wait(f"{app} at /{app}", partial(_all_answer, guest, f"/{app}", pods))
        for _ in range(2):
            answer = guest.ask(f"/{app}")
            stage.check(answer in pods, f"/{app} was answered by {answer!r}")
    green = guest.ask("/tea/green")
    stage.check(green in _pods_of(stage, "tea"), "what is below /tea leads elsewhere")


def _plain_http(stage: Stage, guest: Guest) -> None:
    stage.say("\nBy plain HTTP, the client is sent to HTTPS:")
    moved = guest.ask("/tea", "-o/dev/null", "-w%{http_code} %{redirect_url}", scheme="http")
    stage.check(moved == f"308 https://{HOST}/tea", "plain HTTP is not sent to HTTPS")


def _certificate(stage: Stage, guest: Guest) -> None:
    stage.say("\nThe certificate comes from the Secret, as the client sees it:")
    words = " ".join(guest.words("/tea", "-v", "-o/dev/null"))
    seen = stage.run("client", "sh", "-c", f"{words} 2>&1 | grep -E 'subject|issuer|verify ok'")
    stage.check("verify ok" in seen and "ebpf-lb tutorial" in seen, "another certificate is shown")


def _nowhere(stage: Stage, guest: Guest) -> None:
    stage.say("\nA path that nobody has:")
    answer = guest.ask("/juice", "-w", " (status %{http_code})")
    stage.check(answer.endswith("(status 404)"), "a path without a rule leads somewhere")


def _client_address(stage: Stage, guest: Guest) -> None:
    stage.say(
        "\nThe pod is asked by nginx, not by the client. Because externalTrafficPolicy Local left "
        "the\nclient's address alone, nginx knows it, and hands it on:"
    )
    own = stage.run("client", "sh", "-c", "ip -o addr show dev eth0 scope global", quiet=True)
    for one in (guest, _by_node_port(stage, guest)):
        seen = one.ask("/header?key=X-Forwarded-For")
        stage.check(seen and f" {seen}/" in own, f"X-Forwarded-For is {seen!r}, not the client's")


def _by_node_port(stage: Stage, guest: Guest) -> Guest:
    """The same client, by the NodePort of the controller's node."""
    [pod, *_] = stage.lab.client.get(f"/api/v1/namespaces/{_NAMESPACE}/pods")["items"]
    service = stage.lab.client.get(f"/api/v1/namespaces/{_NAMESPACE}/services/{_SERVICE}")
    [port] = [p["nodePort"] for p in service["spec"]["ports"] if p["name"] == "https"]
    address = stage.lab.node(pod["spec"]["nodeName"]).addresses[0]
    return Guest(stage, address, guest.authority, port)


def _reload(stage: Stage, guest: Guest) -> None:
    stage.say(
        "\nNew pods are a new configuration, which nginx reads without losing a connection. In\n"
        "the middle of a download, whose reader takes a rest, tea is scaled to three:"
    )
    words = guest.words(f"/source?bytes={_DOWNLOAD_BYTES}")
    words = [word for word in words if not word.startswith("-m")]
    before = _pods_of(stage, "tea")
    with stage.lab.popen("client", words, stdout=subprocess.PIPE, text=False) as download:
        assert download.stdout is not None
        got = len(download.stdout.read(1 << 16))
        stage.scale("tea", 3)
        stage.ready_pods(5)
        [new] = _pods_of(stage, "tea") - before
        stage.wait(f"answers of {new}", lambda: new in _answers(guest, "/tea", 6))
        stage.show(f"{new} answers, and the download is at {got} bytes or a little more")
        while block := download.stdout.read(1 << 20):
            got += len(block)
    stage.show(f"{got} bytes of {_DOWNLOAD_BYTES} have come, curl ended with {download.returncode}")
    stage.check(got == _DOWNLOAD_BYTES and not download.returncode, "the download was cut off")


def _default_backend(stage: Stage, guest: Guest) -> None:
    stage.say("\nWith a defaultBackend, what no rule is about goes to coffee:")
    backend = {"service": {"name": "coffee-svc", "port": {"number": 80}}}
    path = INGRESS.path(stage.namespace, "cafe-ingress")
    stage.patch(path, {"spec": {"defaultBackend": backend}})
    pods = _pods_of(stage, "coffee")

    def served() -> str:
        answer = guest.ask("/juice", quiet=True)
        return answer if answer in pods else ""

    # nginx' last configuration may answer once more after that
    guest.told("/juice", stage.wait("coffee at /juice", served))

"""A step of the tutorial, each of some of its parts tried on something broken first:

    python -m tests.lab.spoilt LAB STEP

One run of the step serves all of its sabotages. Before a part is gone through, its subject is
broken, and the part must fail with the sentence that is about it; then it is mended, and the part
must succeed. Prints which part did not fail, or by another sentence; nothing where all is well.
"""

import base64
import io
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import trustme

from ebpf_lb.apiserver.kinds import INGRESS, POD, SECRET, SERVICE
from ebpf_lb.lab.cluster import Lab
from ebpf_lb.lessons.scenarios import run as recording
from ebpf_lb.lessons.tutorial import name_server
from ebpf_lb.lessons.tutorial.course import find
from ebpf_lb.lessons.tutorial.stage import Stage, T, UnexpectedError, set_up
from ebpf_lb.lessons.tutorial.steps import cluster_ip, discovery, ingress, kinds, outside
from tests.lab.test_outside import until

_SHORT_S = 2.0
Breaking = Callable[..., AbstractContextManager[None]]
SERVICE_PROXY = "service.kubernetes.io/service-proxy-name"


@dataclass(frozen=True)
class Spoilt:
    """part: a function of the step. expected: with which sentence it fails."""

    part: str
    expected: str
    breaking: Breaking


class Impatient(Stage):
    """For what `expected` is about it waits for a short time only, since it will not come."""

    expected = ""

    def expect(self, sentence: str) -> None:
        self.expected = sentence
        self.answer_s = 1 if sentence else Stage.answer_s

    def wait(self, what: str, look: Callable[[], T]) -> T:
        short = self.expected and self.expected in what
        self.within_s = _SHORT_S if short else Stage.within_s
        return super().wait(what, look)


# --- ways to break something; each has the stage and what its part is called with


@contextmanager
def not_ours(stage: Stage, name: str, host: str, url: str) -> Iterator[None]:
    """Nobody programs this Service meanwhile."""
    path = SERVICE.path(stage.namespace, name)
    stage.patch(path, {"metadata": {"labels": {SERVICE_PROXY: "nobody"}}})
    until(lambda: not stage.ask(host, url), "it is still served")
    yield
    stage.patch(path, {"metadata": {"labels": {SERVICE_PROXY: None}}})
    until(lambda: stage.ask(host, url), "it is not served again")


@contextmanager
def rules(stage: Stage, node: str, chain: str, rule: str) -> Iterator[None]:
    """A rule of the node's own netfilter."""
    table = stage.namespace.replace("-", "_")
    text = f"table inet {table} {{\nchain c {{\n{chain}\n{rule}\n}}\n}}"
    done = stage.lab.exec(node, ["nft", text])
    assert done.returncode == 0, done.stderr
    yield
    stage.lab.exec(node, ["nft", "delete", "table", "inet", table])


def masqueraded(stage: Stage, node: str, address: str) -> AbstractContextManager[None]:
    version = "ip6" if ":" in address else "ip"
    chain = "type nat hook postrouting priority 90"
    return rules(stage, node, chain, f"{version} daddr {address} masquerade")


def somebody_has_the_address(stage: Stage, address: str, pod: str) -> AbstractContextManager[None]:
    @contextmanager
    def broken() -> Iterator[None]:
        prefix = f"{address}/{128 if ':' in address else 32}"
        stage.run(pod, "ip", "addr", "add", prefix, "dev", "lo", quiet=True)
        yield
        stage.run(pod, "ip", "addr", "del", prefix, "dev", "lo", quiet=True)

    return broken()


def nobody_programs_hostnames(
    stage: Stage, address: str, pods: list[str]
) -> AbstractContextManager[None]:
    return not_ours(stage, "hostnames", pods[0], stage.url(address))


@contextmanager
def asks_another(stage: Stage, pod: str, *_: object) -> Iterator[None]:
    """The pod asks a name server that knows nothing."""
    kept = stage.run(pod, "cat", "/etc/resolv.conf", quiet=True)
    write = ("sh", "-c", 'printf "%s\\n" "$0" > /etc/resolv.conf')
    words = [sys.executable, "-m", name_server.__name__, "nothing", "192.0.2.1"]
    with stage.lab.popen(f"{stage.namespace}/{pod}", words, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None and process.stdout.readline() == "ready\n"
        stage.run(pod, *write, "nameserver 127.0.0.1", quiet=True)
        yield
        stage.run(pod, *write, kept, quiet=True)
        process.kill()


@contextmanager
def changed(stage: Stage, name: str, change: Any, back: Any) -> Iterator[None]:
    """A Service's spec is another meanwhile."""
    path = SERVICE.path(stage.namespace, name)
    stage.patch(path, {"spec": change})
    yield
    stage.patch(path, {"spec": back})


def port_of_another_name(stage: Stage, *_: object) -> AbstractContextManager[None]:
    port = {"name": "http", "port": 80, "targetPort": "http"}
    other = {**port, "name": "another"}
    return changed(stage, "nginx", {"ports": [other]}, {"ports": [port]})


def published(stage: Stage, *_: object) -> AbstractContextManager[None]:
    """Pods that are not ready do not lose their names."""
    key = "publishNotReadyAddresses"
    return changed(stage, "nginx", {key: True}, {key: False})


def other_name(stage: Stage, *_: object) -> AbstractContextManager[None]:
    right = f"hostnames.{stage.namespace}.svc.cluster.local"
    return changed(stage, "old-name", {"externalName": "nothing"}, {"externalName": right})


@contextmanager
def no_way_to_the_pod(stage: Stage) -> Iterator[None]:
    address = stage.get("pods", "web")["status"]["podIP"]
    family = "-6" if ":" in address else "-4"
    rule = ["to", address, "blackhole", "pref", "98"]
    stage.run("node2", "ip", family, "rule", "add", *rule, quiet=True)
    kept = recording._OUTCOME_WITHIN_S
    recording._OUTCOME_WITHIN_S = _SHORT_S
    yield
    recording._OUTCOME_WITHIN_S = kept
    stage.run("node2", "ip", family, "rule", "del", *rule, quiet=True)


def masqueraded_web(stage: Stage) -> AbstractContextManager[None]:
    return masqueraded(stage, "node1", stage.get("pods", "web")["status"]["podIP"])


@contextmanager
def for_the_whole_cluster(stage: Stage) -> Iterator[None]:
    key, address = "externalTrafficPolicy", given_address(stage)
    stage.lab.route(address, None)  # whoever had it before may have pinned it
    with changed(stage, "web", {key: "Cluster"}, {key: "Local"}):
        until(lambda: len(stage.lab.routes()[address]["nodes"]) > 1, "the router does not follow")
        yield


def health_checks_refused(stage: Stage) -> AbstractContextManager[None]:
    port = stage.get("services", "web")["spec"]["healthCheckNodePort"]
    rule = f"tcp dport {port} reject with tcp reset"
    return rules(stage, "node2", "type filter hook input priority 0", rule)


def nobody_programs_web(stage: Stage) -> AbstractContextManager[None]:
    return not_ours(stage, "web", "client", stage.url(given_address(stage)))


def given_address(stage: Stage) -> str:
    def given() -> str:
        status = stage.get("services", "web").get("status") or {}
        return str(((status.get("loadBalancer") or {}).get("ingress") or [{}])[0].get("ip", ""))

    return str(until(given, "the cloud gives no address"))


@contextmanager
def the_first_is_gone(stage: Stage, address: str, port: int) -> Iterator[None]:
    """So the second one gets what it wants."""
    stage.lab.client.delete(SERVICE.path(stage.namespace, "chosen"))
    yield
    stage.lab.client.delete(SERVICE.path(stage.namespace, "second"))
    stage.apply(kinds._OWN % {"address": address, "port": port})


def follows(look: Callable[[], bool]) -> None:
    """Waits until nginx has it, also its last worker of the configuration before, which goes on
    for a tenth of a second."""

    def always() -> bool:
        for _ in range(5):
            if not look():
                return False
            time.sleep(0.1)
        return True

    until(always, "nginx does not follow")


@contextmanager
def ingress_changed(
    stage: Stage, guest: ingress.Guest, change: Any, back: Any, path: str, scheme: str, sign: str
) -> Iterator[None]:
    """cafe-ingress is another meanwhile: then the status at `path` is `sign`."""
    place = INGRESS.path(stage.namespace, "cafe-ingress")

    def status() -> str:
        return guest.ask(path, "-o/dev/null", "-w%{http_code}", scheme=scheme, quiet=True)

    before = status()
    stage.patch(place, change)
    follows(lambda: status() == sign)
    yield
    stage.patch(place, back)
    follows(lambda: status() == before)


def not_redirected(stage: Stage, guest: ingress.Guest) -> AbstractContextManager[None]:
    name = "nginx.ingress.kubernetes.io/ssl-redirect"
    change, back = ({"metadata": {"annotations": {name: value}}} for value in ("false", None))
    return ingress_changed(stage, guest, change, back, "/tea", "http", "200")


def everything_leads_somewhere(stage: Stage, guest: ingress.Guest) -> AbstractContextManager[None]:
    backend = {"service": {"name": "coffee-svc", "port": {"number": 80}}}
    change, back = ({"spec": {"defaultBackend": value}} for value in (backend, None))
    return ingress_changed(stage, guest, change, back, "/juice", "https", "200")


@contextmanager
def certificate_of_another(stage: Stage, guest: ingress.Guest) -> Iterator[None]:
    made = trustme.CA(organization_name="another").issue_cert(ingress.HOST)
    pems = {
        "tls.crt": b"".join(pem.bytes() for pem in made.cert_chain_pems),
        "tls.key": made.private_key_pem.bytes(),
    }
    path = SECRET.path(stage.namespace, "cafe-secret")
    kept = stage.lab.client.get(path)["data"]
    stage.patch(path, {"data": {key: base64.b64encode(pem).decode() for key, pem in pems.items()}})
    follows(lambda: not guest.ask("/tea", quiet=True))
    yield
    stage.patch(path, {"data": kept})
    follows(lambda: bool(guest.ask("/tea", quiet=True)))


def _controller(stage: Stage) -> Any:
    [pod] = stage.lab.client.get(POD.collection_path("ingress-nginx"))["items"]
    return pod


def masqueraded_controller(stage: Stage, _guest: ingress.Guest) -> AbstractContextManager[None]:
    pod = _controller(stage)
    return masqueraded(stage, pod["spec"]["nodeName"], pod["status"]["podIP"])


@contextmanager
def cut_off(stage: Stage, guest: ingress.Guest) -> Iterator[None]:
    """Connections of the client to the controller's pod are reset once a reload may have begun."""
    done, pod = threading.Event(), f"ingress-nginx/{_controller(stage)['metadata']['name']}"

    def three() -> bool:
        return done.is_set() or len(ingress._pods_of(stage, "tea")) == 3

    def cut() -> None:
        until(three, "tea is not scaled")
        while not done.wait(0.2):
            stage.lab.exec(pod, ["ss", "-K", "sport", "=", ":443"])

    thread = threading.Thread(target=cut)
    thread.start()
    yield
    done.set()
    thread.join()
    stage.scale("tea", 2)
    stage.ready_pods(4)
    until(
        lambda: ingress._all_answer(guest, "/tea", ingress._pods_of(stage, "tea")),
        "nginx does not follow",
    )


def coffee_without_its_port(stage: Stage, _guest: ingress.Guest) -> AbstractContextManager[None]:
    port = {"name": "http", "port": 80, "targetPort": "http"}
    other = {**port, "port": 81}
    return changed(stage, "coffee-svc", {"ports": [other]}, {"ports": [port]})


STEPS: dict[str, tuple[ModuleType, tuple[Spoilt, ...]]] = {
    "clusterip": (cluster_ip, (
        Spoilt("_ping", "somebody answers the ping", somebody_has_the_address),
        Spoilt("_compare", "is not in node1's maps", nobody_programs_hostnames),
    )),
    "dns": (discovery, (
        Spoilt("_a_service", "hostnames leads to", asks_another),
        Spoilt("_ports", "_http._tcp.nginx", port_of_another_name),
        Spoilt("_dashed", ".pod.cluster.local. leads to", asks_another),
        Spoilt("_not_ready", "nginx leads to", published),
        Spoilt("_alias", "old-name leads to", other_name),
        Spoilt("_reverse", "leads to PTR", asks_another),
    )),
    "outside": (outside, (
        Spoilt("_draw", "the connection was silent", no_way_to_the_pod),
        Spoilt("_local", "the client's own address", masqueraded_web),
        Spoilt("_load_balancer", "the router knows the one node", for_the_whole_cluster),
        Spoilt("_health_checks", "node2 says 503", health_checks_refused),
        Spoilt("_external_ip", " answers", nobody_programs_web),
    )),
    "kinds": (kinds, (
        Spoilt("_taken", "two Services got the same address", the_first_is_gone),
    )),
    "ingress": (ingress, (
        Spoilt("_plain_http", "plain HTTP is not sent to HTTPS", not_redirected),
        Spoilt("_certificate", "another certificate is shown", certificate_of_another),
        Spoilt("_nowhere", "a path without a rule leads somewhere", everything_leads_somewhere),
        Spoilt("_client_address", "not the client's", masqueraded_controller),
        Spoilt("_reload", "the download was cut off", cut_off),
        Spoilt("_default_backend", "coffee at /juice", coffee_without_its_port),
    )),
}  # fmt: skip


class _EnoughError(Exception):
    """All parts were tried."""


def tried(module: ModuleType, parts: tuple[Spoilt, ...], complaints: list[str]) -> None:
    """Puts the trial before each part of the step."""
    for spoilt in parts:
        whole = getattr(module, spoilt.part)
        last = spoilt is parts[-1]

        def part(
            stage: Impatient, *rest: Any, whole: Any = whole, spoilt: Spoilt = spoilt,
            last: bool = last,
        ) -> Any:  # fmt: skip
            complaints.extend(_trial(stage, whole, spoilt, rest))
            found = whole(stage, *rest)
            if last:
                raise _EnoughError
            return found

        setattr(module, spoilt.part, part)


def _trial(stage: Impatient, whole: Any, spoilt: Spoilt, rest: tuple[Any, ...]) -> Iterator[str]:
    began, said = time.monotonic(), ""
    stage.expect(spoilt.expected)
    with spoilt.breaking(stage, *rest):
        try:
            whole(stage, *rest)
        except UnexpectedError as error:
            said = str(error)
        stage.expect("")
    print(f"{spoilt.part}: {time.monotonic() - began:.1f} s: {said}", file=sys.stderr)
    if spoilt.expected not in said:
        yield f"{spoilt.part}: expected {spoilt.expected!r}, not {said!r}"


def main() -> None:
    lab, name = sys.argv[1:]
    module, parts = STEPS[name]
    ingress.HOST = "cafe.spoilt.example.com"
    complaints: list[str] = []
    tried(module, parts, complaints)
    place = f"{name}-spoilt"
    with suppress(_EnoughError), set_up(Lab(lab), place, io.StringIO(), Impatient) as stage:
        find(name).act(stage)
    print("\n".join(complaints))


if __name__ == "__main__":
    main()

"""Objects of a cluster, and what is asked about them, of the lab's DNS and of CoreDNS.

    python -m tests.api.dns_questions COREDNS

writes down what that program answers (`coredns.json`). The lab's DNS is compared with that record,
and the record with a program where there is one (test_dns_as_coredns.py).
"""

import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import dns.exception
import dns.flags
import dns.message
import dns.query
import dns.rcode
import dns.rdata
import dns.rdatatype
import dns.reversename
import yaml
from dns.rdtypes.ANY.SOA import SOA

from ebpf_lb.containers.dns import coredns
from ebpf_lb.containers.dns.server import TTL_S
from ebpf_lb.lab.objects.apply import apply_files
from tests.api.lab_server import PATIENCE_S, LabServer, free_port

RECORDED = Path(__file__).with_name("coredns.json")
Json = dict[str, Any]
DOMAIN = "cluster.local"
SVC = f"default.svc.{DOMAIN}"


def service(name: str, namespace: str = "default", **spec: Any) -> Json:
    spec = {"ports": [{"name": "http", "port": 80}]} | spec
    metadata = {"name": name, "namespace": namespace}
    return {"apiVersion": "v1", "kind": "Service", "metadata": metadata, "spec": spec}


def endpoint(address: str, hostname: str = "", ready: bool = True) -> Json:
    found: Json = {"addresses": [address], "conditions": {"ready": ready}}
    return found | ({"hostname": hostname} if hostname else {})


def slice_(service_name: str, family: str, *endpoints: Json, ports: Any = None) -> Json:
    labels = {"kubernetes.io/service-name": service_name}
    return {
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": {"name": f"{service_name}-{family.lower()}", "labels": labels},
        "addressType": family,
        "endpoints": list(endpoints),
        "ports": [{"name": "http", "protocol": "TCP", "port": 8080}] if ports is None else ports,
    }


OBJECTS = [
    {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "other"}},
    service("web", clusterIP="10.96.0.7", ipFamilyPolicy="SingleStack"),
    service("dual", ipFamilyPolicy="RequireDualStack", clusterIPs=["10.96.0.8", "fd00:10:96::8"],
            clusterIP="10.96.0.8", ports=[{"name": "http", "port": 80},
                                          {"name": "dns", "port": 53, "protocol": "UDP"},
                                          {"name": "dns-tcp", "port": 53}]),
    service("unnamed", clusterIP="10.96.0.9", ipFamilyPolicy="SingleStack", ports=[{"port": 80}]),
    service("db", clusterIP="None", ipFamilyPolicy="RequireDualStack"),
    service("bare", clusterIP="None", ports=[]),
    service("lonely", clusterIP="None"),
    service("early", clusterIP="None", publishNotReadyAddresses=True),
    service("alias", type="ExternalName", externalName=f"web.{SVC}", ports=[]),
    service("away", type="ExternalName", externalName="example.com", ports=[]),
    service("chain", type="ExternalName", externalName=f"alias.{SVC}", ports=[]),
    service("group", type="ExternalName", externalName=f"db.{SVC}.", ports=[]),
    service("astray", type="ExternalName", externalName=f"nothing.{SVC}", ports=[]),
    service("circle", type="ExternalName", externalName=f"circle.{SVC}", ports=[]),
    service("web", "other", clusterIP="10.96.0.10", ipFamilyPolicy="SingleStack"),
    service("six", clusterIP="fd00:10:96::6", ipFamilies=["IPv6"], ipFamilyPolicy="SingleStack"),
    service("ports", clusterIP="None", ports=[{"name": "http", "port": 80},
                                              {"name": "dns", "port": 53, "protocol": "UDP"}]),
    service("many", clusterIP="None"),
    slice_("web", "IPv4", endpoint("10.244.5.5"), endpoint("10.244.1.9")),
    slice_("db", "IPv4", endpoint("10.244.1.2", "db-0"), endpoint("10.244.2.2"),
           endpoint("10.244.3.2", "db-2", ready=False)),
    slice_("db", "IPv6", endpoint("fd00:10:244:1::2", "db-0"), endpoint("fd00:10:244:2::2")),
    slice_("bare", "IPv4", endpoint("10.244.1.9"), ports=[]),
    slice_("lonely", "IPv4", endpoint("10.244.1.3", ready=False)),
    slice_("ports", "IPv4", endpoint("10.244.1.5", "a"), endpoint("10.244.1.6"),
           ports=[{"name": "http", "protocol": "TCP", "port": 8080},
                  {"name": "dns", "protocol": "UDP", "port": 5353}]),
    slice_("many", "IPv4", *(endpoint(f"10.244.9.{n}", f"many-{n}") for n in range(1, 61))),
    slice_("early", "IPv4", endpoint("10.244.1.4", ready=True)),
]  # fmt: skip

NAMES = [
    *(f"{name}.{SVC}" for name in ("web", "WEB", "dual", "unnamed", "db", "bare", "lonely", "early",
                                   "alias", "away", "nothing", "chain", "group", "astray",
                                   "circle", "six", "ports", "kubernetes")),
    *(f"{name}.{SVC}" for name in ("db-0.db", "db-2.db", "db-9.db", "10-244-2-2.db",
                                   "fd00-10-244-2--2.db", "10-244-1-9.bare")),
    *(f"{name}.{SVC}" for name in ("_http._tcp.web", "_http._udp.web", "_https._tcp.web",
                                   "_dns._udp.dual", "_dns-tcp._tcp.dual", "_http._tcp.db",
                                   "_http._tcp.alias", "_http._tcp.ports", "_dns._udp.ports",
                                   "_http._tcp.six", "_tcp.web", "a.ports", "10-244-1-6.ports")),
    f"web.other.svc.{DOMAIN}", f"web.nowhere.svc.{DOMAIN}", f"db.other.svc.{DOMAIN}",
    f"default.svc.{DOMAIN}", f"nowhere.svc.{DOMAIN}", f"svc.{DOMAIN}", f"pod.{DOMAIN}", DOMAIN,
    f"10-244-7-7.default.pod.{DOMAIN}", f"fd00-10-244--9.default.pod.{DOMAIN}",
    f"10-244-7-7.nowhere.pod.{DOMAIN}", f"no-address.default.pod.{DOMAIN}",
    f"default.pod.{DOMAIN}", f"a.b.c.d.{SVC}", f"web.{DOMAIN}",
]  # fmt: skip
ADDRESSES = ("10.96.0.7", "10.96.0.8", "fd00:10:96::8", "fd00:10:96::6", "10.244.1.2",
             "fd00:10:244:1::2", "10.244.2.2", "10.244.3.2", "10.244.1.5", "10.96.0.1",
             "10.244.5.5", "10.244.1.9",
             "10.96.9.9", "192.0.2.1")  # fmt: skip


class Question(NamedTuple):
    """way: by UDP as of old (512 bytes), by UDP with EDNS and room for as many bytes, by TCP."""

    name: str
    kind: str
    way: str = "UDP"

    def __str__(self) -> str:
        return " ".join(self if self.way != "UDP" else self[:2])


QUESTIONS = [
    *(Question(name, kind) for name in NAMES for kind in ("A", "AAAA", "SRV")),
    *(Question(f"{name}.{SVC}", "CNAME") for name in ("alias", "chain", "web", "nothing")),
    *(Question(f"{name}.{SVC}", kind)
      for name in ("web", "db", "nothing") for kind in ("TXT", "MX")),
    *(Question(name, "TXT") for name in (DOMAIN, f"svc.{DOMAIN}", SVC, f"pod.{DOMAIN}",
                                         f"10-244-7-7.default.pod.{DOMAIN}")),
    Question(DOMAIN, "SOA"),
    Question(f"dns-version.{DOMAIN}", "TXT"),
    Question(f"dns-version.{DOMAIN}", "A"),
    Question("example.com", "A"),
    *(Question(dns.reversename.from_address(a).to_text(), "PTR") for a in ADDRESSES),
    Question("244.10.in-addr.arpa.", "PTR"),
    *(Question(f"many.{SVC}", kind, way) for kind in ("A", "SRV")
      for way in ("UDP", "EDNS 1232", "EDNS 65535", "TCP")),
    *(Question(f"web.{SVC}", "A", way) for way in ("EDNS 512", "EDNS 1232", "TCP")),
    Question(f"nothing.{SVC}", "A", "TCP"),
]  # fmt: skip


@contextmanager
def cluster(folder: Path) -> Iterator[LabServer]:
    """An API server with the objects."""
    api = LabServer(folder)
    manifest = folder / "objects.yaml"
    manifest.write_text(yaml.safe_dump_all(OBJECTS))
    try:
        apply_files(api.local, [str(manifest)])
        yield api
    finally:
        api.close()


@contextmanager
def served(words: list[str], port: int, text: str = "") -> Iterator[None]:
    """A name server runs meanwhile, and knows all objects. text: what it reads at first."""
    process = subprocess.Popen(words, stdin=subprocess.PIPE, text=True)
    assert process.stdin is not None
    with process.stdin as pipe:
        pipe.write(text)
    try:
        deadline = time.monotonic() + PATIENCE_S
        while not _knows(port, f"early.{SVC}"):
            assert process.poll() is None and time.monotonic() < deadline
            time.sleep(0.2)
        yield
    finally:
        process.terminate()
        process.wait(PATIENCE_S)


@contextmanager
def ours(api: LabServer) -> Iterator[int]:
    port = free_port()
    words = [sys.executable, "-m", "ebpf_lb.containers.dns", f"--api={api.socket}"]
    with served([*words, f"--port={port}"], port):
        yield port


@contextmanager
def theirs(api: LabServer, program: str) -> Iterator[int]:
    port = free_port()
    text = coredns.corefile(port, DOMAIN, api.kubeconfig, TTL_S)
    with served([program, "-conf", "stdin"], port, text):
        yield port


def _knows(port: int, name: str) -> bool:
    try:
        return bool(dns.query.udp(dns.message.make_query(name, "A"), "127.0.0.1", 1, port).answer)
    except (dns.exception.Timeout, OSError):
        return False


def ask(port: int, question: Question) -> Json:
    query = dns.message.make_query(question.name, question.kind)
    way, _, room = question.way.partition(" ")
    if room:
        query.use_edns(0, payload=int(room))
    send = dns.query.tcp if way == "TCP" else dns.query.udp
    return described(send(query, "127.0.0.1", timeout=PATIENCE_S, port=port))


def described(message: dns.message.Message) -> Json:
    """What must agree: all but a zone's serial, and how much of an answer that is cut off came."""
    truncated = bool(message.flags & dns.flags.TC)

    def texts(section: list[Any]) -> list[str]:
        return sorted(
            " ".join([str(rrset.name).lower(), str(rrset.ttl), record.rdtype.name, _text(record)])
            for rrset in ([] if truncated else section)
            for record in rrset
        )

    return {
        "rcode": dns.rcode.to_text(message.rcode()),
        "authoritative": bool(message.flags & dns.flags.AA),
        "recursion": bool(message.flags & dns.flags.RA),
        "truncated": truncated,
        "edns": message.edns,
        "answer": texts(message.answer),
        "authority": texts(message.authority),
        "additional": texts(message.additional),
    }


def _text(record: dns.rdata.Rdata) -> str:
    if isinstance(record, SOA):
        record = record.replace(serial=0)
    return str(record.to_text())


def main() -> None:
    [program] = sys.argv[1:]
    version = subprocess.run([program, "-version"], capture_output=True, text=True, check=True)
    with (
        tempfile.TemporaryDirectory() as folder,
        cluster(Path(folder)) as api,
        theirs(api, program) as port,
    ):
        answers = {str(question): ask(port, question) for question in QUESTIONS}
    record = {
        "made by": "python -m tests.api.dns_questions COREDNS",
        "program": version.stdout.split()[0],
        "objects": OBJECTS,
        "answers": answers,
    }
    RECORDED.write_text(json.dumps(record, indent=1) + "\n")


if __name__ == "__main__":
    main()

"""The lab's DNS beside CoreDNS: both follow one API server, and answer the same, record by record.

Collected only where there is a coredns (conftest.py): in the path, or named by COREDNS.
"""

import subprocess
import sys
import time
from collections.abc import Iterator
from typing import Any, NamedTuple

import dns.exception
import dns.flags
import dns.message
import dns.query
import dns.rcode
import dns.rdatatype
import dns.reversename
import pytest
import yaml

from ebpf_lb.lab.objects.apply import apply_files
from tests.api.lab_server import PATIENCE_S, LabServer, free_port
from tests.support.coredns import COREDNS

Json = dict[str, Any]
DOMAIN = "cluster.local"
SVC = f"default.svc.{DOMAIN}"

COREFILE = """
.:{port} {{
    kubernetes {domain} in-addr.arpa ip6.arpa {{
        kubeconfig {kubeconfig} lab
        pods insecure
        ttl 30
    }}
}}
"""


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
    service("web", "other", clusterIP="10.96.0.10", ipFamilyPolicy="SingleStack"),
    slice_("db", "IPv4", endpoint("10.244.1.2", "db-0"), endpoint("10.244.2.2"),
           endpoint("10.244.3.2", "db-2", ready=False)),
    slice_("db", "IPv6", endpoint("fd00:10:244:1::2", "db-0"), endpoint("fd00:10:244:2::2")),
    slice_("bare", "IPv4", endpoint("10.244.1.9"), ports=[]),
    slice_("lonely", "IPv4", endpoint("10.244.1.3", ready=False)),
    slice_("early", "IPv4", endpoint("10.244.1.4", ready=True)),
]  # fmt: skip

NAMES = [
    *(f"{name}.{SVC}" for name in ("web", "WEB", "dual", "unnamed", "db", "bare", "lonely", "early",
                                   "alias", "away", "nothing")),
    *(f"{name}.{SVC}" for name in ("db-0.db", "db-2.db", "db-9.db", "10-244-2-2.db",
                                   "fd00-10-244-2--2.db", "10-244-1-9.bare")),
    *(f"{name}.{SVC}" for name in ("_http._tcp.web", "_http._udp.web", "_https._tcp.web",
                                   "_dns._udp.dual", "_dns-tcp._tcp.dual", "_http._tcp.db",
                                   "_http._tcp.alias")),
    f"web.other.svc.{DOMAIN}", f"web.nowhere.svc.{DOMAIN}", f"db.other.svc.{DOMAIN}",
    f"default.svc.{DOMAIN}", f"nowhere.svc.{DOMAIN}", f"svc.{DOMAIN}", f"pod.{DOMAIN}", DOMAIN,
    f"10-244-7-7.default.pod.{DOMAIN}", f"fd00-10-244--9.default.pod.{DOMAIN}",
    f"10-244-7-7.nowhere.pod.{DOMAIN}", f"no-address.default.pod.{DOMAIN}",
    f"default.pod.{DOMAIN}", f"a.b.c.d.{SVC}", f"web.{DOMAIN}",
]  # fmt: skip
ADDRESSES = ("10.96.0.7", "10.96.0.8", "fd00:10:96::8", "10.244.1.2", "fd00:10:244:1::2")
QUESTIONS = [
    *((name, kind) for name in NAMES for kind in ("A", "AAAA", "SRV")),
    (f"alias.{SVC}", "CNAME"),
    (f"dns-version.{DOMAIN}", "TXT"),
    *((dns.reversename.from_address(address).to_text(), "PTR") for address in ADDRESSES),
]


class Servers(NamedTuple):
    """Ports of the two."""

    coredns: int
    ours: int


def ask(port: int, name: str, kind: str) -> dns.message.Message:
    query = dns.message.make_query(name, kind)
    return dns.query.udp(query, "127.0.0.1", timeout=PATIENCE_S, port=port)


def answers(port: int, name: str, kind: str) -> bool:
    try:
        return bool(dns.query.udp(dns.message.make_query(name, kind), "127.0.0.1", 1, port).answer)
    except (dns.exception.Timeout, OSError):
        return False


@pytest.fixture(scope="module")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Servers]:
    folder = tmp_path_factory.mktemp("dns")
    api = LabServer(folder)
    manifest = folder / "objects.yaml"
    manifest.write_text(yaml.safe_dump_all(OBJECTS))
    apply_files(api.local, [str(manifest)])
    ports = Servers(free_port(), free_port())
    corefile = folder / "Corefile"
    corefile.write_text(
        COREFILE.format(port=ports.coredns, domain=DOMAIN, kubeconfig=api.kubeconfig)
    )
    ours = [
        sys.executable,
        "-m",
        "ebpf_lb.containers.dns",
        f"--api={api.socket}",
        f"--port={ports.ours}",
    ]
    with (folder / "coredns.log").open("wb") as log:
        processes = [
            subprocess.Popen([str(COREDNS), "-conf", str(corefile)], stdout=log, stderr=log),
            subprocess.Popen(ours),
        ]
    try:
        deadline = time.monotonic() + PATIENCE_S
        while not all(answers(port, f"early.{SVC}", "A") for port in ports):
            assert time.monotonic() < deadline, (folder / "coredns.log").read_text()
            time.sleep(0.2)
        yield ports
    finally:
        for process in processes:
            process.terminate()
            process.wait(PATIENCE_S)
        api.close()


def described(message: dns.message.Message) -> Json:
    """What must agree. TTLs of SOA records in authority sections, and its serial, may differ."""

    def texts(section: list[Any]) -> set[str]:
        return {
            " ".join(
                [str(rrset.name), str(rrset.ttl), record.rdtype.name, record.to_text()]
            ).lower()
            for rrset in section
            for record in rrset
        }

    return {
        "rcode": dns.rcode.to_text(message.rcode()),
        "authoritative": bool(message.flags & dns.flags.AA),
        "answer": texts(message.answer),
        "authority": {
            (str(rrset.name), dns.rdatatype.to_text(rrset.rdtype)) for rrset in message.authority
        },
        "additional": texts(message.additional),
    }


@pytest.mark.parametrize(("name", "kind"), QUESTIONS, ids=lambda value: str(value))
def test_the_same_answer(servers: Servers, name: str, kind: str) -> None:
    assert described(ask(servers.ours, name, kind)) == described(ask(servers.coredns, name, kind))

"""Cluster DNS: questions over the wire format, objects as the API server tells them."""

import asyncio
from typing import Any

import dns.exception
import dns.flags
import dns.message
import dns.rcode
import dns.reversename
import dns.rrset
import pytest

from ebpf_lb.containers.dns.server import Resolver
from ebpf_lb.containers.dns.zone import NAMESPACES, SERVICES, SLICES, Zone

Json = dict[str, Any]
WEB, DB = "web.default.svc.cluster.local", "db.default.svc.cluster.local"


def metadata(name: str, **more: Any) -> Json:
    return {"name": name, "namespace": "default", "uid": f"{name}-{more}", **more}


def service(name: str, *addresses: str, ports: Any = (("http", "TCP", 80),), **spec: Any) -> Json:
    listed = [{"name": n, "protocol": p, "port": number} for n, p, number in ports]
    spec = {"type": "ClusterIP", "ports": listed} | spec
    if addresses:
        spec |= {"clusterIP": addresses[0], "clusterIPs": list(addresses)}
    return {"metadata": metadata(name), "spec": spec}


def slice_(service_name: str, family: str, *endpoints: Json, ports: Any = None) -> Json:
    labels = {"kubernetes.io/service-name": service_name}
    return {
        "metadata": metadata(f"{service_name}-{family}", labels=labels),
        "addressType": family,
        "endpoints": list(endpoints) or None,
        "ports": [{"name": "http", "protocol": "TCP", "port": 8080}] if ports is None else ports,
    }


def endpoint(address: str, hostname: str = "", ready: bool = True) -> Json:
    return {"addresses": [address], "conditions": {"ready": ready}} | (
        {"hostname": hostname} if hostname else {}
    )


OBJECTS = {
    NAMESPACES: [{"metadata": {"name": name, "uid": name}} for name in ("default", "kube-system")],
    SERVICES: [
        service("web", "10.96.0.7", "fd00:10:96::7", ports=(("http", "TCP", 80),
                                                           ("dns", "UDP", 53))),
        service("db", "None"),
        service("bare", "None", ports=()),
        service("lonely", "None"),
        service("out", type="ExternalName", externalName="example.com", ports=()),
        service("alias", type="ExternalName", externalName=WEB, ports=()),
        service("broken", type="ExternalName", externalName=f"nothing.{WEB}", ports=()),
        service("circle", type="ExternalName", externalName="circle.default.svc.cluster.local",
                ports=()),
    ],
    SLICES: [
        slice_("db", "IPv4", endpoint("10.244.1.2", "db-0"), endpoint("10.244.2.2"),
               endpoint("10.244.3.2", "db-2", ready=False)),
        slice_("db", "IPv6", endpoint("fd00:10:244:1::2", "db-0")),
        slice_("bare", "IPv4", endpoint("10.244.1.9"), ports=[]),
        slice_("lonely", "IPv4", endpoint("10.244.1.3", ready=False)),
    ],
}  # fmt: skip


@pytest.fixture
def zone() -> Zone:
    made = Zone()
    for path, objects in OBJECTS.items():
        assert not made.complete
        made.take(path, objects)
    assert made.complete
    return made


def ask(zone: Zone, name: str, kind: str = "A", *upstreams: str) -> dns.message.Message:
    query = dns.message.make_query(name, kind)
    resolver = Resolver(zone, "cluster.local", upstreams)
    wire = asyncio.run(resolver.respond(query.to_wire(), udp=True))
    assert wire is not None
    answer = dns.message.from_wire(wire)
    assert answer.id == query.id
    return answer


def texts(answer: dns.message.Message) -> set[str]:
    assert answer.rcode() == dns.rcode.NOERROR
    return {record.to_text() for rrset in answer.answer for record in rrset}


@pytest.mark.parametrize(
    ("name", "kind", "expected"),
    [
        (WEB, "A", {"10.96.0.7"}),
        (WEB.upper(), "A", {"10.96.0.7"}),
        (WEB, "AAAA", {"fd00:10:96::7"}),
        (WEB, "TXT", set()),
        (f"_http._tcp.{WEB}", "SRV", {f"0 50 80 {WEB}."}),
        (f"_dns._udp.{WEB}", "SRV", {f"0 50 53 {WEB}."}),
        (WEB, "SRV", {f"0 25 80 {WEB}.", f"0 25 53 {WEB}."}),
        (DB, "A", {"10.244.1.2", "10.244.2.2"}),
        (DB, "AAAA", {"fd00:10:244:1::2"}),
        (f"db-0.{DB}", "A", {"10.244.1.2"}),
        (f"db-0.{DB}", "AAAA", {"fd00:10:244:1::2"}),
        (f"10-244-2-2.{DB}", "A", {"10.244.2.2"}),
        (f"_http._tcp.{DB}", "SRV", {f"0 33 8080 db-0.{DB}.", f"0 33 8080 10-244-2-2.{DB}."}),
        ("bare.default.svc.cluster.local", "A", {"10.244.1.9"}),
        ("10-244-7-7.default.pod.cluster.local", "A", {"10.244.7.7"}),
        ("fd00-10-244--9.default.pod.cluster.local", "AAAA", {"fd00:10:244::9"}),
        ("10-244-7-7.default.pod.cluster.local", "AAAA", set()),
        ("alias.default.svc.cluster.local", "A", {f"{WEB}.", "10.96.0.7"}),
        ("alias.default.svc.cluster.local", "CNAME", {f"{WEB}."}),
        ("alias.default.svc.cluster.local", "SRV", set()),
        ("broken.default.svc.cluster.local", "A", set()),
        ("circle.default.svc.cluster.local", "A", set()),
        ("bare.default.svc.cluster.local", "SRV", set()),
        ("out.default.svc.cluster.local", "A", {"example.com."}),
        ("dns-version.cluster.local", "TXT", {'"1.1.0"'}),
        ("default.svc.cluster.local", "A", set()),
        ("svc.cluster.local", "A", set()),
        ("cluster.local", "A", set()),
    ],
)
def test_what_there_is(zone: Zone, name: str, kind: str, expected: set[str]) -> None:
    answer = ask(zone, name, kind)
    assert texts(answer) == expected
    assert bool(answer.authority) == (not expected), "a name without such records comes with SOA"
    assert all(rrset.ttl == 30 for rrset in answer.answer) or name.startswith("dns-version")


@pytest.mark.parametrize(
    "name",
    [
        "nothing.default.svc.cluster.local",
        "web.nowhere.svc.cluster.local",
        "nowhere.svc.cluster.local",
        "10-244-7-7.nowhere.pod.cluster.local",
        "not-an-address.default.pod.cluster.local",
        f"db-2.{DB}",  # not ready
        "lonely.default.svc.cluster.local",
        f"_https._tcp.{WEB}",
        f"_http._udp.{WEB}",
        "web.default.cluster.local",
        "a.b.c.default.svc.cluster.local",
    ],
)
def test_what_there_is_not(zone: Zone, name: str) -> None:
    answer = ask(zone, name)
    assert answer.rcode() == dns.rcode.NXDOMAIN
    assert [rrset.name.to_text() for rrset in answer.authority] == ["cluster.local."]


def test_addresses_come_along_with_srv(zone: Zone) -> None:
    answer = ask(zone, f"_http._tcp.{DB}", "SRV")
    more = {(r.name.to_text(), record.to_text()) for r in answer.additional for record in r}
    assert more == {
        (f"db-0.{DB}.", "10.244.1.2"),
        (f"db-0.{DB}.", "fd00:10:244:1::2"),
        (f"10-244-2-2.{DB}.", "10.244.2.2"),
    }


@pytest.mark.parametrize(
    ("address", "name"),
    [
        ("10.96.0.7", f"{WEB}."),
        ("fd00:10:96::7", f"{WEB}."),
        ("10.244.1.2", f"db-0.{DB}."),
        ("10.244.2.2", f"10-244-2-2.{DB}."),
        ("fd00:10:244:1::2", f"db-0.{DB}."),
    ],
)
def test_reverse(zone: Zone, address: str, name: str) -> None:
    assert texts(ask(zone, dns.reversename.from_address(address).to_text(), "PTR")) == {name}


@pytest.mark.parametrize("name", ["example.com", "3.3.244.10.in-addr.arpa", "10.in-addr.arpa"])
def test_what_is_not_the_clusters_fails_without_upstream(zone: Zone, name: str) -> None:
    assert ask(zone, name, "PTR" if "arpa" in name else "A").rcode() == dns.rcode.SERVFAIL


@pytest.fixture
def upstream(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """192.0.2.2 knows example.com, nobody else answers; the list says who was asked."""
    asked: list[str] = []

    async def exchange(query: dns.message.Message, where: str, _: float) -> Any:
        asked.append(where)
        if where != "192.0.2.2":
            raise dns.exception.Timeout
        response = dns.message.make_response(query)
        if query.question[0].name.to_text() == "example.com.":
            response.answer = [dns.rrset.from_text("example.com.", 60, "IN", "A", "192.0.2.80")]
        else:
            response.set_rcode(dns.rcode.NXDOMAIN)
        return response, False

    monkeypatch.setattr("dns.asyncquery.udp_with_fallback", exchange)
    return asked


def test_what_is_not_the_clusters_is_asked_outside(zone: Zone, upstream: list[str]) -> None:
    servers = ("192.0.2.1", "192.0.2.2")
    answer = ask(zone, "example.com", "A", *servers)
    assert texts(answer) == {"192.0.2.80"}
    assert not answer.flags & dns.flags.AA
    assert upstream == [*servers], "the second one when the first is silent"
    assert ask(zone, "example.org", "A", *servers).rcode() == dns.rcode.NXDOMAIN
    assert ask(zone, "example.com", "A", "192.0.2.1").rcode() == dns.rcode.SERVFAIL
    alias = ask(zone, "out.default.svc.cluster.local", "A", *servers)
    assert texts(alias) == {"example.com.", "192.0.2.80"}
    before = len(upstream)
    assert texts(ask(zone, WEB, "A", *servers)) == {"10.96.0.7"}
    assert len(upstream) == before, "nobody outside hears of the cluster's names"


def test_changes(zone: Zone) -> None:
    changed = service("web", "10.96.0.8")
    zone.take(SERVICES, {"type": "MODIFIED", "object": changed})
    assert texts(ask(zone, WEB)) == {"10.96.0.8"}
    assert ask(zone, "7.0.96.10.in-addr.arpa", "PTR").rcode() == dns.rcode.SERVFAIL
    zone.take(SERVICES, {"type": "DELETED", "object": changed})
    assert ask(zone, WEB).rcode() == dns.rcode.NXDOMAIN
    assert ask(zone, "8.0.96.10.in-addr.arpa", "PTR").rcode() == dns.rcode.SERVFAIL
    zone.take(SLICES, [])
    assert ask(zone, DB).rcode() == dns.rcode.NXDOMAIN
    assert ask(zone, DB.removeprefix("db.")).rcode() == dns.rcode.NOERROR


def test_long_answers_are_cut_over_udp_and_whole_over_tcp(zone: Zone) -> None:
    zone.take(SLICES, [slice_("db", "IPv4", *(endpoint(f"10.244.1.{n}") for n in range(1, 200)))])
    query = dns.message.make_query(DB, "A", use_edns=False)
    resolver = Resolver(zone, "cluster.local")
    short = asyncio.run(resolver.respond(query.to_wire(), udp=True))
    whole = asyncio.run(resolver.respond(query.to_wire(), udp=False))
    assert short and whole and len(short) <= 512
    assert dns.message.from_wire(short).flags & dns.flags.TC
    assert len(texts(dns.message.from_wire(whole))) == 199


@pytest.mark.parametrize("wire", [b"", b"abc", bytes(12), bytes(11) + b"\x01\xff\xff"])
def test_what_is_no_question_is_not_answered(zone: Zone, wire: bytes) -> None:
    assert asyncio.run(Resolver(zone, "cluster.local").respond(wire, udp=True)) is None


def test_answers_are_not_answered(zone: Zone) -> None:
    """Else two such servers would talk to each other for ever."""
    answer = ask(zone, WEB).to_wire()
    assert asyncio.run(Resolver(zone, "cluster.local").respond(answer, udp=True)) is None

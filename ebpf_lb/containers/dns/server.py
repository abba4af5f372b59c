"""DNS over UDP and TCP: questions in, answers out of a Zone."""

import asyncio
import logging
import random
import socket
from collections.abc import Sequence
from typing import cast

import dns.asyncquery
import dns.exception
import dns.flags
import dns.message
import dns.name
import dns.rcode
import dns.rdataclass
import dns.rdatatype
import dns.reversename
import dns.rrset

from ebpf_lb.containers.dns.zone import NO_PORT, Alias, Record, Zone

log = logging.getLogger("dns")

TTL_S = 30
_SOA = f"ns.dns.{{zone}} hostmaster.{{zone}} 1 7200 1800 86400 {TTL_S}"
_UPSTREAM_S = 2.0
_SMALLEST_UDP = 512  # without EDNS
_CHAIN = 8  # CNAMEs one after the other
_REVERSE = (dns.reversename.ipv4_reverse_domain, dns.reversename.ipv6_reverse_domain)
_VERSION, _VERSION_TTL_S = "1.1.0", 28_800  # of the specification

_ADDRESSES = {4: dns.rdatatype.A, 6: dns.rdatatype.AAAA}


class Resolver:
    """Answers questions. upstreams: addresses of name servers for what is not the cluster's."""

    def __init__(self, zone: Zone, domain: str, upstreams: Sequence[str] = ()) -> None:
        self._zone = zone
        self._origin = dns.name.from_text(domain)
        self._upstreams = upstreams

    async def respond(self, wire: bytes, *, udp: bool) -> bytes | None:
        """The answer to a message; None to what is not a question."""
        try:
            query = dns.message.from_wire(wire)
        except dns.exception.DNSException:
            return None
        if query.flags & dns.flags.QR or len(query.question) != 1:
            return None
        response = await self._answer(query)
        size = max(query.payload, _SMALLEST_UDP) if udp else 65535
        return response.to_wire(max_size=size, prefer_truncation=True)

    async def _answer(self, query: dns.message.Message) -> dns.message.Message:
        response = dns.message.make_response(query, recursion_available=bool(self._upstreams))
        question = query.question[0]
        name, kind = question.name, question.rdtype
        if question.rdclass != dns.rdataclass.IN:
            response.set_rcode(dns.rcode.REFUSED)
            return response
        if name.is_subdomain(self._origin):
            response.flags |= dns.flags.AA
            await self._from_zone(response, name, kind)
        elif kind == dns.rdatatype.PTR and (names := self._pointers(name)):
            response.flags |= dns.flags.AA
            response.answer.append(dns.rrset.from_text_list(name, TTL_S, "IN", "PTR", names))
        else:
            found = await self._ask(name, kind)
            if found is None:
                response.set_rcode(dns.rcode.SERVFAIL)
            else:
                response.set_rcode(found.rcode())
                response.answer, response.authority = found.answer, found.authority
        return response

    async def _from_zone(
        self, response: dns.message.Message, name: dns.name.Name, kind: dns.rdatatype.RdataType
    ) -> None:
        labels = name.relativize(self._origin).labels
        if not labels and kind == dns.rdatatype.SOA:
            response.answer.append(self._soa())
        elif labels == (b"dns-version",) and kind == dns.rdatatype.TXT:
            version = dns.rrset.from_text(name, _VERSION_TTL_S, "IN", kind, f'"{_VERSION}"')
            response.answer.append(version)
        else:
            found = await self._look_up(response, name, kind, _CHAIN)
            if found is None:
                response.set_rcode(dns.rcode.NXDOMAIN)
            response.answer = found or []
        if not response.answer:
            response.authority.append(self._soa())

    async def _look_up(
        self,
        response: dns.message.Message,
        name: dns.name.Name,
        kind: dns.rdatatype.RdataType,
        chain: int,
    ) -> list[dns.rrset.RRset] | None:
        """The answer's records; None where there is no such name. As with CoreDNS, a CNAME is there
        only with what it leads to, and for addresses alone; and a name that only has others below
        it is not there for TXT."""
        labels = name.relativize(self._origin).labels
        found = self._zone.find(tuple(label.decode("latin-1").lower() for label in labels))
        if found == [] and kind == dns.rdatatype.TXT:
            return None
        if not isinstance(found, Alias):
            return None if found is None else self._records(response, name, kind, found)
        target = dns.name.from_text(found.target)
        alias = _rrset(name, dns.rdatatype.CNAME, [target.to_text()])
        if kind == dns.rdatatype.CNAME:
            return [alias]
        if kind not in _ADDRESSES.values() or not chain:
            return []
        if target.is_subdomain(self._origin):
            more = await self._look_up(response, target, kind, chain - 1)
            return [alias, *more] if more else []
        beyond = await self._ask(target, kind)
        return [alias, *(beyond.answer if beyond else ())]

    def _soa(self) -> dns.rrset.RRset:
        text = _SOA.format(zone=self._origin.to_text())
        return _rrset(self._origin, dns.rdatatype.SOA, [text])

    def _records(
        self,
        response: dns.message.Message,
        name: dns.name.Name,
        kind: dns.rdatatype.RdataType,
        records: list[Record],
    ) -> list[dns.rrset.RRset]:
        texts: list[str] = []
        if kind in _ADDRESSES.values():
            found = [record.address for record in records if _kind_of(record.address) == kind]
            texts = list(dict.fromkeys(found))
            random.shuffle(texts)  # whoever takes the first one spreads
        elif kind == dns.rdatatype.SRV:
            served = [record for record in records if record.port.number != NO_PORT]
            places = dict.fromkeys((record.host, record.port.number) for record in served)
            weight = 100 // max(1, len(served))
            texts = [f"0 {weight} {port} {self._name(host)}" for host, port in places]
            for host, address in dict.fromkeys((record.host, record.address) for record in served):
                owner = dns.name.from_text(self._name(host))
                response.additional.append(_rrset(owner, _kind_of(address), [address]))
        return [_rrset(name, kind, texts)] if texts else []

    def _name(self, labels: tuple[str, ...]) -> str:
        return f"{'.'.join(labels)}.{self._origin.to_text()}"

    def _pointers(self, name: dns.name.Name) -> list[str]:
        if not any(name.is_subdomain(domain) for domain in _REVERSE):
            return []
        try:
            address = dns.reversename.to_address(name)
        except (dns.exception.DNSException, ValueError):
            return []  # a part of an address
        return [self._name(labels) for labels in self._zone.reverse(address)]

    async def _ask(
        self, name: dns.name.Name, kind: dns.rdatatype.RdataType
    ) -> dns.message.Message | None:
        """What the name servers outside say, the first that answers."""
        query = dns.message.make_query(name, kind)
        for upstream in self._upstreams:
            try:
                answer, _ = await dns.asyncquery.udp_with_fallback(query, upstream, _UPSTREAM_S)
                return answer
            except (dns.exception.DNSException, OSError) as error:
                log.warning("%s: no answer from %s: %s", name, upstream, error)
        return None


def _rrset(
    name: dns.name.Name, kind: dns.rdatatype.RdataType, texts: Sequence[str]
) -> dns.rrset.RRset:
    return dns.rrset.from_text_list(name, TTL_S, dns.rdataclass.IN, kind, texts)


def _kind_of(address: str) -> dns.rdatatype.RdataType:
    return _ADDRESSES[6 if ":" in address else 4]


# --- sockets


class _Datagrams(asyncio.DatagramProtocol):
    def __init__(self, resolver: Resolver) -> None:
        self._resolver = resolver
        self._tasks: set[asyncio.Task[None]] = set()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.DatagramTransport, transport)

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        task = asyncio.create_task(self._reply(data, addr))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _reply(self, data: bytes, addr: tuple[str, int]) -> None:
        if answer := await self._resolver.respond(data, udp=True):
            self._transport.sendto(answer, addr)


async def listen(resolver: Resolver, port: int) -> None:
    """Opens the port, UDP and TCP, on all addresses. OSError if it is taken."""

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                size = int.from_bytes(await reader.readexactly(2))
                answer = await resolver.respond(await reader.readexactly(size), udp=False)
                if answer is None:
                    return
                writer.write(len(answer).to_bytes(2) + answer)
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            pass  # the client is gone
        finally:
            writer.close()

    loop = asyncio.get_running_loop()
    datagrams = _bound(socket.SOCK_DGRAM, port)
    await loop.create_datagram_endpoint(lambda: _Datagrams(resolver), sock=datagrams)
    await asyncio.start_server(talk, sock=_bound(socket.SOCK_STREAM, port))


def _bound(kind: socket.SocketKind, port: int) -> socket.socket:
    """A socket for both families."""
    made = socket.socket(socket.AF_INET6, kind)
    made.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
    if kind is socket.SOCK_STREAM:
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    made.bind(("::", port))
    return made

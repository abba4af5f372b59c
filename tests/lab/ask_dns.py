"""One question for A records by UDP or TCP; prints the addresses as JSON."""

import json
import sys

import dns.message
import dns.query
import dns.rdatatype

server, protocol, name = sys.argv[1:]
ask = dns.query.udp if protocol == "udp" else dns.query.tcp
answer = ask(dns.message.make_query(name, "A"), server, timeout=10)
found = [rrset for rrset in answer.answer if rrset.rdtype == dns.rdatatype.A]
print(json.dumps([record.to_text() for rrset in found for record in rrset]))

"""CoreDNS itself, where its program is at hand: in the path, or named by COREDNS.

This project does not install it. In its place `server` gives the same answers.
"""

import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import dns.exception
import dns.message
import dns.query
import dns.rcode

from ebpf_lb.errors import UserError

_COREFILE = """\
.:{port} {{
    errors
    kubernetes {domain} in-addr.arpa ip6.arpa {{
        kubeconfig {kubeconfig}
        pods insecure
        fallthrough in-addr.arpa ip6.arpa
        ttl {ttl}
    }}
{forward}    loadbalance
}}
"""
_FORWARD = "    forward . {upstreams}\n"
_STARTS_WITHIN_S = 60.0


class CoreDnsError(UserError):
    """It does not begin to answer."""


def program() -> str | None:
    return os.environ.get("COREDNS") or shutil.which("coredns")


def corefile(
    port: int, domain: str, kubeconfig: Path, ttl_s: int, upstreams: Sequence[str] = ()
) -> str:
    forward = _FORWARD.format(upstreams=" ".join(upstreams)) if upstreams else ""
    return _COREFILE.format(
        port=port, domain=domain, kubeconfig=kubeconfig, ttl=ttl_s, forward=forward
    )


def serve(name: str, text: str, port: int, domain: str, ready: Callable[[], None]) -> int:
    """Runs the program with this Corefile to its end, and returns its exit status. ready: called
    once it knows the cluster. SIGTERM ends it. CoreDnsError: it has not begun to answer."""
    with subprocess.Popen([name, "-conf", "stdin"], stdin=subprocess.PIPE, text=True) as process:
        before = signal.signal(signal.SIGTERM, lambda *_: process.terminate())
        try:
            assert process.stdin is not None
            process.stdin.write(text)
            process.stdin.close()
            deadline = time.monotonic() + _STARTS_WITHIN_S
            while not _answers(port, domain):
                if process.poll() is not None or time.monotonic() > deadline:
                    process.kill()
                    raise CoreDnsError(f"{name} does not begin to answer: see what it says above")
                time.sleep(0.1)
            ready()
            return process.wait()
        finally:
            signal.signal(signal.SIGTERM, before)


def _answers(port: int, domain: str) -> bool:
    """Every cluster has this name, and it is known with the first lists."""
    query = dns.message.make_query(f"kubernetes.default.svc.{domain}", "A")
    try:
        return dns.query.udp(query, "127.0.0.1", 1, port).rcode() == dns.rcode.NOERROR
    except (dns.exception.DNSException, OSError):
        return False

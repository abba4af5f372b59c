"""Who we are to the API server: what stands in files plainly, is read here; all else by the
kubernetes library, in a short-lived process.
"""

import json
import os
import ssl
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import urllib3
from urllib3.util.ssl_ import create_urllib3_context

from ebpf_lb.errors import UserError
from ebpf_lb.kube import plain
from ebpf_lb.kube.stamps import Stamp, stamps

_TIMEOUT_S = 60  # an exec plugin may ask its cloud


@dataclass(frozen=True, slots=True)
class Credentials:
    """Certificates and the key are PEM texts, "" for none; `proxy` is a URL or "". `files`: what
    they were read from; `read_at`: how these were then, which makes no other credentials."""

    server: str
    headers: dict[str, str] = field(repr=False)
    verify: bool = True
    authority: str = ""
    certificate: str = ""
    key: str = field(default="", repr=False)
    server_name: str = ""
    proxy: str = ""
    proxy_headers: dict[str, str] = field(default_factory=dict, repr=False)
    files: tuple[str, ...] = ()
    read_at: tuple[Stamp, ...] = field(default=(), compare=False, repr=False)

    def stamps(self) -> tuple[Stamp, ...]:
        """How the files are now."""
        return stamps(self.files)

    def pool(self, **options: Any) -> urllib3.PoolManager:
        """Connections with these certificates; `options` are urllib3's. ValueError, OSError."""
        if self.server.startswith("https"):
            options["ssl_context"] = self._tls()
            if not self.verify:
                options |= {"cert_reqs": ssl.CERT_NONE, "assert_hostname": False}
            if self.server_name:
                options["server_hostname"] = self.server_name
        if self.proxy.startswith("socks"):
            from urllib3.contrib.socks import SOCKSProxyManager

            return SOCKSProxyManager(self.proxy, headers=self.proxy_headers, **options)
        if self.proxy:
            return urllib3.ProxyManager(self.proxy, proxy_headers=self.proxy_headers, **options)
        return urllib3.PoolManager(**options)

    def _tls(self) -> ssl.SSLContext:
        context = create_urllib3_context(cert_reqs=None if self.verify else ssl.CERT_NONE)
        if self.authority:
            context.load_verify_locations(cadata=self.authority)
        elif self.verify:
            context.load_default_certs()
        if self.certificate:
            # OpenSSL wants a file: one in memory, which goes before anybody else sees it
            with os.fdopen(os.memfd_create("client-certificate"), "w") as file:
                file.write(f"{self.certificate}\n{self.key}\n")
                file.flush()
                context.load_cert_chain(f"/proc/self/fd/{file.fileno()}")
        return context


def read(kubeconfig: Path | None, server: str | None = None) -> Credentials:
    """From a kubeconfig file, else those that a pod is given; `server` overrides the URL.

    Exec plugins and token files are asked anew. UserError if the credentials cannot be read.
    """
    files = tuple(plain.files(kubeconfig))
    before = stamps(files)  # what changes meanwhile is read once more
    found = plain.read(kubeconfig)
    if found is None:
        return _by_library(kubeconfig, server)
    if server is not None:
        found["server"] = server
    return Credentials(**found, files=files, read_at=before)


def _by_library(kubeconfig: Path | None, server: str | None) -> Credentials:
    arguments = [str(kubeconfig or ""), server or ""]
    command = [sys.executable, "-m", "ebpf_lb.kube.library", *arguments]
    try:
        done = subprocess.run(
            command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, timeout=_TIMEOUT_S
        )
        found = json.loads(done.stdout)
    except subprocess.TimeoutExpired:
        raise UserError(f"Reading the credentials took longer than {_TIMEOUT_S} s.") from None
    except ValueError:
        raise UserError(
            f"The credentials cannot be read: the process that should ended with status "
            f"{done.returncode}; its reason stands above."
        ) from None
    if "error" in found:
        raise UserError(found["error"])
    files = tuple(found.pop("files"))
    # as they were before they were read: what changed meanwhile is read once more
    read_at = tuple(tuple(one) if one else None for one in found.pop("read_at"))
    return Credentials(**found, files=files, read_at=read_at)

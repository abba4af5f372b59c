"""An nginx of the controller's own: started once, and from then on told to read again what has
changed. Old workers serve their connections to the end."""

import hashlib
import logging
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import trustme

from ebpf_lb.containers.ingress.render import HEALTH_PORT, render
from ebpf_lb.containers.ingress.rules import Sites
from ebpf_lb.errors import UserError

log = logging.getLogger("ingress")

_STARTS_WITHIN_S = 20.0


class NoNginxError(UserError):
    """nginx is not installed, or does not start."""


def program() -> str:
    """The system's, else the one that `make setup` has unpacked beside this interpreter."""
    unpacked = Path(sys.prefix) / "nginx" / "usr" / "sbin" / "nginx"
    found = shutil.which("nginx", path=f"{os.environ.get('PATH', os.defpath)}:/usr/sbin")
    if not found and not unpacked.exists():
        raise NoNginxError("there is no nginx: run `make setup`, or install your system's")
    return found or str(unpacked)


class Nginx:
    """folder: its own; what is in it goes with the pod."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._program = program()
        self._configuration = folder / "nginx.conf"
        self._process: subprocess.Popen[bytes] | None = None
        for part in ("certificates", "tmp"):
            (folder / part).mkdir(parents=True, mode=0o700, exist_ok=True)
        self._fake = self._keep(_fake_certificate())

    @property
    def alive(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def serve(self, sites: Sites) -> bool:
        """Whether it serves this now: what nginx does not take changes nothing. NoNginxError: it
        does not start."""
        text = render(sites, self._folder, self._certificates(sites))
        if self.alive and self._configuration.read_text() == text:
            return True
        new = self._folder / "nginx.conf.new"
        new.write_text(text)
        if complaint := self._complaint(new):
            log.error("nginx does not take the new configuration: %s", complaint)
            if self.alive:
                return False
            raise NoNginxError(f"nginx does not start: {complaint}")
        new.rename(self._configuration)
        if self._process is not None and self.alive:
            self._process.send_signal(signal.SIGHUP)
            log.info("nginx reads its configuration again")
        else:
            self._start()
        return True

    def _start(self) -> None:
        self._process = subprocess.Popen(self._command(self._configuration))
        deadline = time.monotonic() + _STARTS_WITHIN_S
        while self.alive and time.monotonic() < deadline:
            try:
                socket.create_connection(("127.0.0.1", HEALTH_PORT), timeout=1).close()
                return
            except OSError:
                time.sleep(0.02)
        raise NoNginxError("nginx does not start: see the pod's log")

    def _complaint(self, configuration: Path) -> str:
        words = [*self._command(configuration), "-t", "-q"]
        done = subprocess.run(words, capture_output=True, text=True, check=False)
        return done.stderr.strip() if done.returncode else ""

    def _command(self, configuration: Path) -> list[str]:
        return [self._program, "-p", str(self._folder), "-c", str(configuration), "-e", "stderr"]

    def _certificates(self, sites: Sites) -> dict[str, Path]:
        return {
            host.name: self._keep(host.certificate) if host.certificate else self._fake
            for host in sites.hosts
        }

    def _keep(self, pem: bytes) -> Path:
        """By its content, so that a new one never changes a file that is being read."""
        path = self._folder / "certificates" / f"{hashlib.sha256(pem).hexdigest()[:32]}.pem"
        if not path.exists():
            descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
            with os.fdopen(descriptor, "wb") as file:
                file.write(pem)
        return path


def _fake_certificate() -> bytes:
    """For hosts without one of their own: nobody trusts it, and its name says why."""
    authority = trustme.CA(organization_name="ebpf-lb lab")
    name = "Kubernetes Ingress Controller Fake Certificate"
    made = authority.issue_cert("ingress.local", common_name=name)
    return made.private_key_and_cert_chain_pem.bytes()

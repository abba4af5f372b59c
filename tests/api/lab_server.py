"""The lab's API server as a process, on an address of this machine."""

import os
import random
import signal
import socket
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import yaml
from kubernetes import client, config

from ebpf_lb.lab.objects.client import Client

PATIENCE_S = 60
_PORTS = range(10_000, 32_000)  # below those that the kernel gives to whoever asks for none


def free_port() -> int:
    """One that nobody gets by chance while the server is away."""
    while True:
        port = random.SystemRandom().choice(_PORTS)
        with socket.socket() as probe, suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port


class LabServer:
    """Starts at once. `folder` keeps its state, so a second one there goes on where it ended."""

    def __init__(self, folder: Path, *options: str, port: int = 0) -> None:
        self.folder = folder
        self.port = port or free_port()
        self.socket = folder / "api.sock"
        self._options = options
        self._start()

    def _start(self) -> None:
        argv = [sys.executable, "-m", "ebpf_lb.apiserver", "--dir", str(self.folder / "api")]
        argv += ["--address", "127.0.0.1", "--port", str(self.port), "--unix", str(self.socket)]
        argv += ["--service-cidr", "10.96.0.0/16", "--service-cidr", "fd00:10:96::/112"]
        self.process = subprocess.Popen([*argv, *self._options])
        self.local = Client(self.socket)
        deadline = time.monotonic() + PATIENCE_S
        while True:
            try:
                self.local.get("/readyz")
                return
            except OSError:
                assert self.process.poll() is None and time.monotonic() < deadline
                time.sleep(0.02)

    def stop(self) -> None:
        """By SIGTERM."""
        self.process.terminate()
        assert self.process.wait(PATIENCE_S) == 0

    def kill(self) -> None:
        """By SIGKILL, as a crash."""
        os.kill(self.process.pid, signal.SIGKILL)
        self.process.wait(PATIENCE_S)

    def restart(self) -> None:
        self._start()

    def close(self) -> None:
        if self.process.poll() is None:
            self.stop()

    @property
    def kubeconfig(self) -> Path:
        path = self.folder / "kubeconfig"
        token = (self.folder / "api/token").read_text()
        cluster = {
            "server": f"https://127.0.0.1:{self.port}",
            "certificate-authority": str(self.folder / "api/ca.crt"),
        }
        path.write_text(
            yaml.safe_dump(
                {
                    "apiVersion": "v1",
                    "kind": "Config",
                    "clusters": [{"name": "lab", "cluster": cluster}],
                    "users": [{"name": "lab", "user": {"token": token}}],
                    "contexts": [{"name": "lab", "context": {"cluster": "lab", "user": "lab"}}],
                    "current-context": "lab",
                }
            )
        )
        return path

    def api_client(self) -> client.ApiClient:
        """The kubernetes library's."""
        return config.new_client_from_config(str(self.kubeconfig))

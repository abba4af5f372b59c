"""Machines in namespaces, provisioned as Vagrant does it."""

import contextlib
import json
import os
import re
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TextIO

import trustme

from tests.cluster.machines import stock
from tests.cluster.machines.images import make_images
from tests.cluster.machines.stock import ROOT, run

HERE = Path(__file__).parent
OUTSIDE = "ebpflb-vagrant"
"""The network namespace of what is outside: a wire for all eth0, one for all eth1, and a host on
both."""

GATEWAY, HOST = "10.0.2.2", "192.168.56.1"
NAME = "www.example.org"
_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


def old_cgroups() -> bool:
    return not Path("/sys/fs/cgroup/cgroup.controllers").exists()


@dataclass
class Machine:
    """One `config.vm.define`. said: where the provisioning's output goes."""

    name: str
    number: int
    address: str
    scripts: list[dict[str, Any]]
    root: Path
    said: TextIO
    boot: subprocess.Popen[bytes] | None = field(default=None, init=False)

    @property
    def group(self) -> str:
        return f"{OUTSIDE}-{self.name}"

    @property
    def init(self) -> str:
        """The id of its process 1."""
        assert self.boot is not None
        process = Path(f"/proc/{self.boot.pid}")
        children = process / "task" / process.name / "children"

        def child() -> str:
            is_there = (process / "comm").read_text() == "unshare\n"
            return children.read_text().strip() if is_there else ""

        return str(until(child, f"{self.name} begins"))

    def start(self) -> None:
        self.boot = subprocess.Popen(
            ["bash", HERE / "boot.sh", self.root, self.name, self.group],
            stdin=subprocess.DEVNULL,
            stdout=self.said,
            stderr=self.said,
        )
        init, own = self.init, Path("/proc/self/ns/net").readlink()
        theirs = Path(f"/proc/{init}/ns/net")
        until(lambda: theirs.readlink() != own, f"{self.name} has a network")
        for device, wire in (("eth0", "nat"), ("eth1", "private")):
            port = f"{wire}{self.number}"
            outside("ip", "link", "add", port, "master", wire, "up", "type", "veth", "peer",
                    "name", device, "netns", init)  # fmt: skip
        until(self._is_up, f"{self.name} is up")

    def _is_up(self) -> bool:
        state = self.run("systemctl", "is-system-running", check=False).strip()
        return state in ("running", "degraded")

    def reboot(self) -> None:
        assert self.boot is not None
        self.run("systemctl", "reboot", check=False)
        self.boot.wait(120)
        self.start()

    def end(self) -> None:
        if self.boot is not None and self.boot.poll() is None:
            with contextlib.suppress(ProcessLookupError, ValueError, AssertionError):
                os.kill(int(self.init), signal.SIGKILL)
            self.boot.kill()
            self.boot.wait(60)
        for line in Path("/proc/mounts").read_text().splitlines():
            _, path, kind, *_ = line.split()
            if kind in ("cgroup", "cgroup2"):
                for group, _, _ in os.walk(f"{path}/{self.group}", topdown=False):
                    _patiently_remove(Path(group))

    def run(self, *words: str, check: bool = True, env: Mapping[str, str] | None = None) -> str:
        """As root in it."""
        done = subprocess.run(
            ["nsenter", "-t", self.init, "-a", "env", "-i", f"PATH={_PATH}", "HOME=/root",
             "LANG=C.UTF-8", *(f"{key}={value}" for key, value in (env or {}).items()), *words],
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
            check=False,
        )  # fmt: skip
        if check:
            assert done.returncode == 0, f"{self.name}: {' '.join(words)}:\n{done.stdout[-6000:]}"
        return done.stdout

    def provision(self, name: str) -> None:
        """One script, as it stands in the checkout."""
        [script] = [one for one in self.scripts if one["name"] == name]
        said = self.run("bash", f"/vagrant/{script['path']}", env=script["env"])
        print(f"--- {self.name}: {name}\n{said}", file=self.said, flush=True)


def _patiently_remove(group: Path) -> None:
    for _ in range(100):
        try:
            return group.rmdir()
        except OSError:
            if not group.exists():
                return None
            time.sleep(0.1)  # a process still ends
    return None


def until(look: Callable[[], Any], what: str) -> Any:
    deadline = time.monotonic() + 300
    while not (seen := look()):
        assert time.monotonic() < deadline, f"not so: {what}"
        time.sleep(0.5)
    return seen


def outside(*words: str) -> str:
    return run("nsenter", f"--net=/run/netns/{OUTSIDE}", *words)


@contextmanager
def machines(said: TextIO) -> Iterator[list[Machine]]:
    """Those of the Vagrantfile: booted, with the project's folder in each, and not provisioned yet.
    `NODES` in the environment says how many."""
    described = json.loads(run("ruby", HERE / "vagrantfile.rb", ROOT / "Vagrantfile"))
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(dir="/var/tmp")))
        _serve(stack, folder)
        found = []
        for number, one in enumerate(described, start=1):
            [(_, address)] = one["networks"]
            machine = Machine(
                one["name"], number, address, one["provision"], folder / one["name"], said
            )
            _install(machine, folder / "ca.crt")
            stack.callback(machine.end)
            machine.start()
            found.append(machine)
        yield found


def _serve(stack: ExitStack, folder: Path) -> None:
    sites = folder / "sites"
    sites.mkdir()
    kubernetes = stock.kubernetes(old_cgroups())
    for name, source in (
        ("deb.debian.org", stock.debian(folder)),
        ("pypi.org", stock.pypi()),
    ):
        (sites / name).symlink_to(source)
    version = run("ruby", "-e", "print ENV.fetch('KUBERNETES', 'v1.36')")
    (sites / "pkgs.k8s.io" / "core:" / "stable:" / version).mkdir(parents=True)
    (sites / "pkgs.k8s.io" / "core:" / "stable:" / version / "deb").symlink_to(kubernetes)
    (sites / NAME).mkdir()
    authority = trustme.CA()
    (folder / "ca.crt").write_bytes(authority.cert_pem.bytes())
    own = authority.issue_cert(*(site.name for site in sites.iterdir()))
    (sites / "key").write_bytes(own.private_key_pem.bytes())
    (sites / "crt").write_bytes(b"".join(pem.bytes() for pem in own.cert_chain_pems))

    networks(stack)
    server = stack.enter_context(
        subprocess.Popen(
            ["nsenter", f"--net=/run/netns/{OUTSIDE}", ROOT / ".venv/bin/python", "-m",
             "tests.cluster.machines.outside", GATEWAY, sites],
            cwd=ROOT, stdout=subprocess.PIPE,
        )
    )  # fmt: skip
    stack.callback(server.kill)
    assert server.stdout is not None and server.stdout.readline() == b"ready\n"


def networks(stack: ExitStack) -> None:
    """What is outside, until the stack ends: machines that are started plug themselves in."""
    run("ip", "netns", "add", OUTSIDE)
    stack.callback(run, "ip", "netns", "del", OUTSIDE)
    outside("ip", "link", "set", "lo", "up")
    for wire in ("nat", "private"):
        outside("ip", "link", "add", wire, "up", "type", "bridge")
    outside("ip", "address", "add", f"{GATEWAY}/24", "dev", "nat")
    outside("ip", "address", "add", f"{HOST}/24", "dev", "private")


def unpack(machine: Machine) -> None:
    """The box, with its name and its addresses."""
    root = machine.root
    root.mkdir()
    run("tar", "-xf", stock.box(), "-C", root)
    _write(root, {
        "etc/hostname": f"{machine.name}\n",
        "etc/hosts": f"127.0.0.1 localhost\n::1 localhost\n127.0.1.1 {machine.name}\n",
        "etc/resolv.conf": f"nameserver {GATEWAY}\n",
        # of the kernel, which is not the machine's own
        "etc/sysctl.d/50-pid-max.conf": "",
        "etc/sysctl.d/99-protect-links.conf": "",
        "etc/systemd/system/devices.service": _DEVICES.format(machine=machine),
    })  # fmt: skip
    run("chroot", root, "systemctl", "enable", "devices")


def _write(root: Path, files: Mapping[str, str]) -> None:
    for path, text in files.items():
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).unlink(missing_ok=True)
        (root / path).write_text(text)


def _install(machine: Machine, authority: Path) -> None:
    """The box, and what Vagrant does to it before the provisioning."""
    root = machine.root
    unpack(machine)
    _write(root, {
        "etc/apt/sources.list": f"deb [trusted=yes] {_DEBIAN} {stock.SUITE} main\n",
        "etc/pip.conf": "[global]\ncert = /etc/ssl/certs/ca-certificates.crt\n",
        f"lib/modules/{os.uname().release}/modules.builtin": _BUILTIN,
        "usr/local/share/ca-certificates/outside.crt": authority.read_text(),
    })  # fmt: skip
    if not _may_protect_from_oom():
        program = root / "usr/local/bin/containerd"
        program.write_text(_CONTAINERD)
        program.chmod(0o755)
    run("chroot", root, "update-ca-certificates")
    run("chroot", root, "depmod", os.uname().release)
    listed = run("git", "-c", "safe.directory=*", "-C", ROOT, "ls-files", "-z").split("\0")
    own = root / "vagrant"
    for name in filter(lambda one: one and (ROOT / one).exists(), listed):
        (own / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, own / name, follow_symlinks=False)
    if (ROOT / "ebpf_lb" / "objects").exists():  # compiled, as in a folder in which one works
        shutil.copytree(ROOT / "ebpf_lb" / "objects", own / "ebpf_lb" / "objects", symlinks=True)


def _may_protect_from_oom() -> bool:
    """CAP_SYS_RESOURCE, which a container's root may lack."""
    [line] = re.findall(r"CapEff:\t(\w+)", Path("/proc/self/status").read_text())
    return bool(int(line, 16) >> 24 & 1)


# of the way to the program that is asked for its configuration; the service has the whole path
_CONTAINERD = """\
#!/bin/sh
/usr/bin/containerd "$@" | sed 's/restrict_oom_score_adj = false/restrict_oom_score_adj = true/'
"""
_DEBIAN = "http://deb.debian.org/debian"
_BUILTIN = "kernel/overlay.ko\nkernel/br_netfilter.ko\n"
_DEVICES = """
[Unit]
Description=The addresses that the box and Vagrant give to eth0 and eth1
DefaultDependencies=no
Before=network-online.target network.target
After=local-fs.target

[Service]
Type=oneshot
RemainAfterExit=yes
ExecStart=ip link set lo up
ExecStart=ip address replace 10.0.2.1{machine.number}/24 dev eth0
ExecStart=ip address replace {machine.address}/24 dev eth1
ExecStart=ip link set eth0 up
ExecStart=ip link set eth1 up
ExecStart=ip route replace default via 10.0.2.2

[Install]
WantedBy=network-online.target multi-user.target
"""


def load_images(machine: Machine) -> None:
    """Those of Kubernetes and of the test, into containerd, once that is installed."""
    sandbox = machine.run("sh", "-c", "sed -n 's/.*sandbox_image = \"\\(.*\\)\"/\\1/p' "
                                      "/etc/containerd/config.toml").strip()  # fmt: skip
    archive = make_images(sandbox)
    shutil.copy(archive, machine.root / "var/cache/images.tar")
    machine.run("ctr", "-n", "k8s.io", "images", "import", "/var/cache/images.tar")

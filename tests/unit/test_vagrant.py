"""The virtual machines' scripts, as far as they can be tried without machines."""

import os
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from ebpf_lb.lab import namespaces
from tests.capabilities import NETNS, NFTABLES, needs

ROOT = Path(__file__).parents[2]
SCRIPTS = sorted((ROOT / "vagrant").glob("*.sh"))
VAGRANTFILE = (ROOT / "Vagrantfile").read_text()

SETTINGS = {
    "ADDRESS": "192.168.56.11",
    "ADDRESS6": "fd00:192:168:56::11",
    "ALL_PODS": "10.244.0.0/16",
    "ALL_PODS6": "fd00:10:244::/48",
    "ALL_NODES": "192.168.56.0/24",
    "ALL_NODES6": "fd00:192:168:56::/64",
    "PEERS": "10.244.2.0/24=192.168.56.12 fd00:10:244:2::/64=fd00:192:168:56::12",
}


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda script: script.name)
def test_each_script_can_be_read_and_has_what_it_needs(script: Path) -> None:
    subprocess.run(["bash", "-n", script], check=True)
    used = set(re.findall(r"\$\{?!?([A-Z][A-Z_0-9]*)\b", script.read_text()))
    given = set(re.findall(r'"([A-Z_0-9]+)" =>', VAGRANTFILE)) | {"HOME"}
    assert used - given == set()


def test_every_script_is_run() -> None:
    named = set(re.findall(r'"([a-z-]+)"', VAGRANTFILE)) | {"pod-network"}  # by network.sh
    assert {script.stem for script in SCRIPTS} - named == set()


@pytest.fixture
def machine() -> Iterator[None]:
    """This thread is in a network namespace with the machine's second interface meanwhile."""
    netns = Path(f"/run/netns/ebpflb-vagrant-{os.getpid()}")
    namespaces.create(netns)
    with namespaces.entered(netns):
        run("ip link add eth1 type veth peer name wire")
        for device in ("lo", "eth1", "wire"):
            run(f"ip link set {device} up")
        run(f"ip address add {SETTINGS['ADDRESS']}/24 dev eth1")
        yield
    namespaces.remove(netns)


def run(command: str) -> str:
    words = command.split()
    return subprocess.run(words, check=True, capture_output=True, text=True).stdout


@needs(NETNS, NFTABLES)
def test_routes_and_masquerading(machine: None) -> None:
    script = ROOT / "vagrant" / "pod-network.sh"
    for _ in range(2):
        subprocess.run([script], env={**os.environ, **SETTINGS}, check=True)
    assert "10.244.2.0/24 via 192.168.56.12 dev eth1" in run("ip route")
    assert "fd00:10:244:2::/64 via fd00:192:168:56::12 dev eth1" in run("ip -6 route")
    assert "fd00:192:168:56::11/64" in run("ip -6 address show dev eth1")
    rules = [line.strip() for line in run("nft list ruleset").splitlines() if "masq" in line]
    assert rules == [
        "ip saddr 10.244.0.0/16 ip daddr != { 10.244.0.0/16, 192.168.56.0/24 } masquerade",
        "ip6 saddr fd00:10:244::/48 "
        "ip6 daddr != { fd00:10:244::/48, fd00:192:168:56::/64 } masquerade",
    ]

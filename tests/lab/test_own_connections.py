"""A connection of the node's own and a masqueraded one with the same ports, to one backend."""

import subprocess
import sys
from pathlib import Path

import pytest

from ebpf_lb.lab.cluster import Lab
from tests.lab.conftest import Room
from tests.support import conversation
from tests.support.checker import Reaches, expect
from tests.support.manifests import deployment, service

NODE_PORT, PORT = 31500, 45678


def of_family(addresses: tuple[str, ...], family: str) -> str:
    return next(str(a) for a in addresses if (":" in str(a)) == (family == "ipv6"))


def talk(
    lab: Lab, host: str, protocol: str, source: str, address: str, port: int, for_s: float
) -> subprocess.Popen[str]:
    argv = [sys.executable, "-I", "-S", str(Path(conversation.__file__))]
    words = [protocol, source, str(PORT), address, str(port), str(for_s)]
    return lab.popen(
        host, [*argv, *words], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


@pytest.mark.parametrize("protocol", ["tcp", "udp"])
@pytest.mark.parametrize("family", ["ipv4", "ipv6"])
def test_both_live(room: Room, family: str, protocol: str) -> None:
    """The node's comes second, and is noticed; the pod sees it with another port."""
    web = service("web", protocols=("TCP", "UDP"), type="NodePort")
    for port in web["spec"]["ports"]:
        port["nodePort"] = NODE_PORT
    room.apply(deployment("web", node="node1"), web)
    lab = room.lab
    [pod] = room.pods("web").values()
    backend = of_family(pod.addresses, family)
    node2 = of_family(lab.node("node2").addresses, family)
    shown = f"[{node2}]" if family == "ipv6" else node2
    expect(lab, "client", f"{shown}:{NODE_PORT}/{protocol}", Reaches(set(room.pods("web"))))

    nobody = "::" if family == "ipv6" else "0.0.0.0"
    client = talk(lab, "client", protocol, nobody, node2, NODE_PORT, 3.0)
    assert client.stdout
    first = client.stdout.readline().strip()
    assert first == f"{shown}:{PORT}"
    own = talk(lab, "node2", protocol, node2, backend, 80, 1.5)
    told, complaints = own.communicate(timeout=20)
    assert own.returncode == 0, complaints
    rest, complaints = client.communicate(timeout=20)
    assert client.returncode == 0, complaints
    assert set(rest.split()) == {first} and len(rest.split()) > 20
    assert len(set(told.split())) == 1 and len(told.split()) > 15
    [seen] = set(told.split())
    assert seen.startswith(f"{shown}:") and seen != first

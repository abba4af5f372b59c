"""A connection of the node's own and a masqueraded one with the same ports, to one backend."""

import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from ebpf_lb.lab.cluster import Lab
from tests.lab.conftest import Room
from tests.support import conversation
from tests.support.checker import Reaches, expect
from tests.support.manifests import deployment, service

NODE_PORT, PORT = 31500, 21678  # none that the system chooses for another socket
TIMES = 20


def of_family(addresses: tuple[str, ...], family: str) -> str:
    return next(str(a) for a in addresses if (":" in str(a)) == (family == "ipv6"))


def talk(
    lab: Lab, host: str, protocol: str, source: str, address: str, port: int, count: int = 0
) -> subprocess.Popen[str]:
    argv = [sys.executable, "-I", "-S", str(Path(conversation.__file__))]
    words = [protocol, source, str(PORT), address, str(port), str(count)]
    return lab.popen(
        host, [*argv, *words],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip


@contextmanager
def ended(process: subprocess.Popen[str]) -> Iterator[subprocess.Popen[str]]:
    """Not there any more afterwards, whatever becomes of the test."""
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


@pytest.mark.rule("CO-28")
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
    with ExitStack() as stack:
        client = stack.enter_context(ended(talk(lab, "client", protocol, nobody, node2, NODE_PORT)))
        assert client.stdout
        first = client.stdout.readline().strip()
        assert first == f"{shown}:{PORT}"
        own = stack.enter_context(
            ended(talk(lab, "node2", protocol, node2, backend, 80, count=TIMES))
        )
        told, complaints = own.communicate(timeout=60)
        assert own.returncode == 0, complaints
        assert len(told.split()) == TIMES
        # while the node's own one lived, and after that
        rest = [client.stdout.readline().strip() for _ in range(2 * TIMES)]
        more, complaints = client.communicate("", timeout=60)
        assert client.returncode == 0, complaints
    assert {*rest, *more.split()} == {first}
    [seen] = set(told.split())
    assert seen.startswith(f"{shown}:") and seen != first

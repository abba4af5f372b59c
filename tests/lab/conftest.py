"""A lab of the tests' own, and what runs in it.

With TEST_LAB=NAME the tests use a lab that runs already and leave it running: quicker while writing
tests, and a way to run them against another proxy (`ebpf-lb lab up --name NAME --proxy none`).
"""

import itertools
import json
import os
import re
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from ebpf_lb.lab.cluster import Lab
from ebpf_lb.lab.options import Options
from tests.capabilities import LAB, missing
from tests.support import manifests
from tests.support.checker import SETTLED_S
from tests.support.leftovers import leftovers

EBPF_LB = Path(__file__).parents[2] / ".venv" / "bin" / "ebpf-lb"
_numbers = itertools.count(1)


@contextmanager
def own_lab(options: Options) -> Iterator[Lab]:
    """A lab for the tests that need another than all others; nothing of it may be left."""
    if reason := missing(*LAB):
        pytest.skip(reason)
    made = Lab(f"t{os.getpid()}x{next(_numbers)}")
    try:
        made.up(options, progress=lambda *_: None)
        yield made
    finally:
        made.down()
    assert leftovers(made.name) == []


@pytest.fixture(scope="session")
def lab() -> Iterator[Lab]:
    """Three nodes, both families, the real agent; nothing of it may be left afterwards."""
    if reason := missing(*LAB):
        pytest.skip(reason)
    if given := os.environ.get("TEST_LAB"):
        yield Lab(given)
        return
    name = f"t{os.getpid()}"
    made = Lab(name)
    try:
        made.up(Options(), progress=lambda *_: None)
        yield made
    finally:
        made.down()
    assert leftovers(name) == []


@pytest.fixture(scope="session")
def native_lab() -> Iterator[Lab]:
    """Likewise, with native XDP."""
    with own_lab(Options(xdp="native")) as made:
        yield made


@pytest.fixture(scope="session")
def vxlan_lab() -> Iterator[Lab]:
    """Likewise, with VXLAN between the nodes and a wire of its own to each pod."""
    with own_lab(Options(network="vxlan", pods="ptp")) as made:
        yield made


@pytest.fixture(scope="session")
def udp_lab() -> Iterator[Lab]:
    """Likewise, with tunnels without Ethernet frames."""
    with own_lab(Options(network="udp", pods="ptp")) as made:
        yield made


@pytest.fixture(scope="session")
def cli(lab: Lab) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Runs `ebpf-lb lab …` on the tests' lab, from a folder that is not the project's."""

    def run(*words: str, **keywords: Any) -> subprocess.CompletedProcess[str]:
        environment = {**os.environ, "EBPF_LB_LAB": lab.name}
        return subprocess.run(
            [EBPF_LB, "lab", *words],
            env=environment, cwd="/", capture_output=True, text=True, check=False, **keywords,
        )  # fmt: skip

    return run


def sent_by_xdp(lab: Lab, node: str, family: str) -> int:
    """Packets that XDP on the node's uplinks has sent on, as its programs count them."""
    dump = ["ebpf-lb", "maps", "dump", "counters", "--family", family, "-o", "json"]
    rows = json.loads(lab.exec(node, dump, check=True).stdout)[family]["counters"]
    return sum(int(row["packets"]) for row in rows if row["reason"] == "XDP")


@dataclass
class Room:
    """A Kubernetes namespace for a test's own objects."""

    lab: Lab
    namespace: str
    folder: Path
    applied: list[Path] = field(default_factory=list)

    def apply(self, *objects: manifests.Manifest) -> None:
        """Like `kubectl apply` of a file of its own, and waits until the pods run and the API
        server calls them ready: what a test then says of a pod, the kubelet does not overwrite."""
        path = self.folder / f"{self.namespace}-{len(self.applied)}.json"
        self.applied.append(manifests.write(path, manifests.in_namespace(self.namespace, objects)))
        self.lab.apply([path])
        wanted = {
            each["metadata"]["name"]: each["spec"].get("replicas", 1)
            for each in objects
            if each["kind"] in ("Deployment", "Pod")
        }
        deadline = time.monotonic() + SETTLED_S
        while missing := {n: c for n, c in wanted.items() if not self._run(n, c)}:
            assert time.monotonic() < deadline, f"these pods do not run: {missing}"
            time.sleep(0.02)

    def _run(self, app: str, count: int) -> bool:
        """Whether so many pods run, and have been ready. (One that a test made unready since, or
        that terminates, has been.)"""
        names = self.pods(app).keys()
        if len(names) != count:
            return False
        listed = self.lab.client.get(f"/api/v1/namespaces/{self.namespace}/pods")["items"]
        started = {p["metadata"]["name"] for p in listed if p.get("status", {}).get("podIP")}
        return names <= started

    def pods(self, app: str) -> dict[str, Any]:
        """Name -> pod, of a deployment's running pods, or of the one pod of that name."""
        return {
            pod.name: pod
            for pod in self.lab.pods()
            if pod.namespace == self.namespace and re.fullmatch(rf"{app}(-\w+-\w+)?", pod.name)
        }

    def pod(self, app: str) -> str:
        """The one pod of a deployment, as `lab.exec` names it."""
        [name] = self.pods(app)
        return f"{self.namespace}/{name}"


def room_in(lab: Lab, folder: Path) -> Iterator[Room]:
    """A namespace in any lab, for a fixture: it goes when the fixture ends."""
    room = Room(lab, f"test-{os.getpid()}-{next(_numbers)}", folder)
    yield room
    lab.delete(
        [manifests.write(folder / "namespace.json", manifests.in_namespace(room.namespace, []))]
    )
    # its addresses and ports are the next room's to choose, its pods do not end beside others
    deadline = time.monotonic() + SETTLED_S
    while room.namespace in _namespaces(lab):
        assert time.monotonic() < deadline, f"namespace {room.namespace} does not go"
        time.sleep(0.02)


def _namespaces(lab: Lab) -> set[str]:
    return {each["metadata"]["name"] for each in lab.client.get("/api/v1/namespaces")["items"]}


@pytest.fixture
def room(lab: Lab, tmp_path: Path) -> Iterator[Room]:
    """A namespace for one test."""
    yield from room_in(lab, tmp_path)


@pytest.fixture(scope="module")
def shared_room(lab: Lab, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Room]:
    """A namespace for the tests of one file."""
    yield from room_in(lab, tmp_path_factory.mktemp("manifests"))


@pytest.fixture(scope="module", params=[True, False], ids=["bridge-nf", "no-bridge-nf"])
def bridge_netfilter(lab: Lab, request: pytest.FixtureRequest) -> Iterator[bool]:
    """Bridge netfilter on all nodes on, and off: a file's tests run with each."""

    def switch(on: bool) -> None:
        for node in lab.nodes():
            for table in ("iptables", "ip6tables"):
                path = f"/proc/sys/net/bridge/bridge-nf-call-{table}"
                lab.exec(node.name, ["sh", "-c", f"echo {int(on)} > {path}"], check=True)

    switch(request.param)
    yield request.param
    switch(lab.options.bridge_netfilter)

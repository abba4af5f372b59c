"""What tests/scenarios/lives/*.yaml tell, with real pods, an agent, and sockets that stay."""

import json
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from itertools import count
from pathlib import Path
from typing import Any

import pytest

from tests.lab.conftest import Room
from tests.scenarios.lives import LIVES, Life, Moment, Question, slice_of
from tests.scenarios.verdicts import of_version
from tests.support import keeper, sweep
from tests.support.checker import SETTLED_S
from tests.support.manifests import PORT, Manifest, deployment

NODE, FAR = "node1", "node2"
SWEEP = [sys.executable, "-I", "-S", str(Path(sweep.__file__))]
KEEPER = [sys.executable, "-I", "-S", str(Path(keeper.__file__))]
ANSWER_S, SILENCE_S = 3.0, 0.7


class Story:
    """A life in the lab: a Service of its own, whose slices are made by hand."""

    def __init__(self, room: Room, pods: dict[str, Any], life: Life, number: int) -> None:
        self._room, self._pods, self._life = room, pods, life
        self._external = [f"192.0.2.{100 + number}", f"2001:db8::1{number:02x}"]
        self._new = count(23_000 + 200 * number)
        self._kept: Mapping[str, int] = defaultdict(count(25_500 + 10 * number).__next__)
        self._keepers: dict[str, subprocess.Popen[str]] = {}
        room.apply(self._service())
        for address in self._external:
            self._until(lambda: address in room.lab.routes(), f"no way leads to {address}")  # noqa: B023
            room.lab.route(address, NODE)

    def _service(self) -> Manifest:
        return {
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": {"name": self._life.name},
            "spec": {
                "type": "NodePort",
                "ipFamilyPolicy": "RequireDualStack",
                "externalIPs": self._external,
                "ports": [{"name": "http", "protocol": self._life.protocol, "port": 80}],
                **self._life.spec(),
            },
        }

    def _until(self, met: Callable[[], bool], otherwise: str) -> None:
        deadline = time.monotonic() + SETTLED_S
        while not met():
            assert time.monotonic() < deadline, otherwise
            time.sleep(0.05)

    def become(self, moment: Moment) -> None:
        """Until node1's maps are as the moment says."""
        protocol = self._life.protocol
        for version in (4, 6):
            pods = {
                name: (of_version(pod.addresses, version), pod.node)
                for name, pod in self._pods.items()
            }
            self._room.apply(slice_of(self._life.name, moment, version, PORT, pods, protocol))
        wanted = {name: sorted(found) for name, found in moment.maps.items()}
        self._until(lambda: self._maps() == [wanted] * 2, f"{moment}: the maps do not follow")

    def _maps(self) -> list[dict[str, list[str]]]:
        """The Service's sets on node1, of each family."""
        service = f"{self._room.namespace}/{self._life.name}"
        dump = ["ebpf-lb", "maps", "dump", "services", "--service", service, "-o", "json"]
        found = json.loads(self._room.lab.exec(NODE, dump, check=True).stdout)
        return [
            {name: sorted(map(self._pod_of, row[name])) for name in ("cluster", "local")}
            for family in ("ipv4", "ipv6")
            for row in found[family]["services"]
        ]

    def _pod_of(self, backend: str) -> str:
        address = backend.rpartition(":")[0].strip("[]")
        return next(n for n, pod in self._pods.items() if address in pod.addresses)

    def ask(self, asked: Question, version: int) -> set[str]:
        """Who answers, or how it ends."""
        if asked.verb != "ask":
            return {self._keep(asked, version)}
        kept = asked.who != "anybody"
        first = self._kept[asked.who] if kept else next(self._new)
        for _ in range(0 if kept else asked.tries - 1):
            next(self._new)
        seconds = SILENCE_S if asked.answer == "dropped" else ANSWER_S
        where = [self._life.protocol.lower(), *self._where(asked, version), asked.tries, seconds]
        host = self._host(asked)
        done = self._room.lab.exec(host, [*SWEEP, str(first)], input=json.dumps([where]))
        assert done.returncode == 0, done.stderr
        names = {pod.name: name for name, pod in self._pods.items()}
        words = {"silent": "dropped"}
        [outcomes] = json.loads(done.stdout)
        return {names.get(name) or words.get(kind, kind) for kind, name, _ in outcomes}

    def _host(self, asked: Question) -> str:
        return "client" if asked.client == "outside" else self._room.pod("client")

    def _keep(self, asked: Question, version: int) -> str:
        """The same, of a connection that stays."""
        words: list[Any] = [asked.verb, f"{asked.connection} IPv{version}"]
        if asked.verb == "open":
            seconds = SILENCE_S if asked.answer == "dropped" else ANSWER_S
            words += [self._kept[asked.who], *self._where(asked, version), seconds]
        host = self._host(asked)
        if host not in self._keepers:
            pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
            self._keepers[host] = self._room.lab.popen(host, KEEPER, **pipes)
        keeping = self._keepers[host]
        assert keeping.stdin is not None and keeping.stdout is not None
        print(json.dumps(words), file=keeping.stdin, flush=True)
        said = str(keeping.stdout.readline()).strip()
        names = {pod.name: name for name, pod in self._pods.items()} | {"ended": ""}
        return names.get(said, said)

    def end(self) -> None:
        for keeping in self._keepers.values():
            with keeping:
                keeping.kill()

    def _where(self, asked: Question, version: int) -> tuple[str, int]:
        path = f"/api/v1/namespaces/{self._room.namespace}/services/{self._life.name}"
        spec = self._room.lab.client.get(path)["spec"]
        if asked.destination == "NodePort":
            [node] = [node for node in self._room.lab.nodes() if node.name == NODE]
            return of_version(list(node.addresses), version), spec["ports"][0]["nodePort"]
        addresses = spec["clusterIPs"] if asked.destination == "ClusterIP" else self._external
        return of_version(addresses, version), 80

    def expect(self, asked: Question, moment: Moment, version: int) -> None:
        """A flow of UDP that has lost its backend notices within a second. A connection that is
        kept has one try."""
        if asked.verb != "ask":
            got = self.ask(asked, version)
            assert got == {asked.answer}, f"{moment}, {asked}, IPv{version}: {got}"
            return
        deadline = time.monotonic() + SETTLED_S
        while (got := self.ask(asked, version)) != {asked.answer}:
            assert time.monotonic() < deadline, f"{moment}, {asked}, IPv{version}: {got}"


@pytest.fixture(scope="module")
def pods(shared_room: Room) -> Iterator[dict[str, Any]]:
    shared_room.apply(
        deployment("client", node=NODE), deployment("near", node=NODE), deployment("far", node=FAR)
    )
    yield {name: pod for name in ("near", "far") for pod in shared_room.pods(name).values()}


@pytest.mark.rule(
    "CO-10",
    "CO-12",
    "CO-13",
    "CO-15",
    "CO-16",
    "CO-17",
    "EP-8",
    "EP-11",
    "VE-6",
    "VE-10",
    "VE-12",
    "AF-4",
)
@pytest.mark.parametrize("number", range(len(LIVES)), ids=[life.name for life in LIVES])
def test_a_life(shared_room: Room, pods: dict[str, Any], number: int) -> None:
    story = Story(shared_room, pods, LIVES[number], number)
    try:
        for moment, questions in LIVES[number].moments():
            story.become(moment)
            for asked in questions:
                for version in (4, 6):
                    story.expect(asked, moment, version)
    finally:
        story.end()

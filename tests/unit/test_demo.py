"""The demo's table, which is what people see first."""

import io
import shlex
import subprocess
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import click
import pytest

from ebpf_lb.cli.main import main
from ebpf_lb.lab.options import Options
from ebpf_lb.lessons import demo
from ebpf_lb.lessons.demo import Column, DemoError, hints, manifest, render

PODS = {"hostnames-6c5d8-aaaaa": "node1", "hostnames-6c5d8-bbbbb": "node3"}
ADDRESSES = (("IPv4", "http://10.96.0.9/"), ("IPv6", "http://[fd00:10:96::9]/"))


def test_table() -> None:
    columns = [
        Column(host, title, family, url, Counter({pod: 20 + i for i, pod in enumerate(PODS)}))
        for host, title in (("default/hostnames-6c5d8-aaaaa", "from a pod"), ("n", "from node1"))
        for family, url in ADDRESSES
    ]
    assert render(columns, PODS).splitlines() == [
        "Service default/hostnames at http://10.96.0.9/ and http://[fd00:10:96::9]/, 2 pods",
        "The pod that asks is hostnames-6c5d8-aaaaa, one of them.",
        "",
        "                                      from a pod      from node1",
        "who answered                        IPv4    IPv6    IPv4    IPv6",
        "hostnames-6c5d8-aaaaa  node1          20      20      20      20",
        "hostnames-6c5d8-bbbbb  node3          21      21      21      21",
        "answers                               41      41      41      41",
    ]


def test_the_hints_are_commands_that_there_are() -> None:
    _, *lines = hints("http://10.96.0.9/").splitlines()
    assert len(lines) == 3
    asked = [words for line in lines for words in commands(shlex.split(line))]
    assert ["maps", "dump"] in [words[:2] for words in asked]
    for words in asked:
        command: click.Command = main
        while isinstance(command, click.Group):
            found = command.get_command(click.Context(command), words[0])
            assert found, f"there is no command {words[0]!r}"
            command, words = found, words[1:]


def commands(words: list[str]) -> Iterator[list[str]]:
    """What `ebpf-lb` is given, also where it is run inside of the lab."""
    for place, word in enumerate(words):
        if Path(word).name == "ebpf-lb":
            yield words[place + 1 :]


def test_the_example_is_found() -> None:
    assert manifest().name == "hostnames.yaml"
    assert manifest().exists()


class FakeLab:
    """A lab that runs, whose Service is answered by `answering`."""

    name = "fake"
    exists = True
    running = True
    made_by = ""
    options = Options()

    def __init__(self, answering: list[str]) -> None:
        self.answering = answering
        self.client = SimpleNamespace(
            get=lambda _: {"spec": {"clusterIPs": ["10.96.0.9", "fd00:10:96::9"]}}
        )

    def nodes(self) -> list[Any]:
        return [SimpleNamespace(name=f"node{n}") for n in (1, 2, 3)]

    def pods(self) -> list[Any]:
        return [
            SimpleNamespace(namespace="default", name=f"hostnames-{n}", node=f"node{n}")
            for n in (1, 2, 3)
        ]

    def log(self, process: str) -> Path:
        return Path("/run/logs", process)

    def agent_healthy(self, _: str) -> bool:
        return True

    def apply(self, _: list[Any]) -> None:
        pass

    def exec(self, _: str, argv: list[str], **__: Any) -> subprocess.CompletedProcess[str]:
        tries = sum(word.startswith("http://") for word in argv)
        answers = "\n".join((self.answering * tries)[:tries])
        return subprocess.CompletedProcess(argv, 0, answers)


def test_a_service_that_works() -> None:
    out = io.StringIO()
    demo.run(FakeLab(["hostnames-1", "hostnames-2", "hostnames-3"]), out)  # type: ignore[arg-type]
    assert "hostnames-3  node3" in out.getvalue()
    assert out.getvalue().rstrip().endswith("ebpf-lb maps dump")


@pytest.mark.parametrize(
    ("answering", "complaint"),
    [
        (["hostnames-1", "hostnames-2"], "not every pod answered each way, and 0 connections"),
        ([], "160 connections got no answer: look into /run/logs"),
    ],
)
def test_a_service_that_does_not(
    monkeypatch: pytest.MonkeyPatch, answering: list[str], complaint: str
) -> None:
    monkeypatch.setattr(demo, "_READY_WITHIN_S", 0.1)
    with pytest.raises(DemoError, match=complaint):
        demo.run(FakeLab(answering), io.StringIO())  # type: ignore[arg-type]


class ForeignLab(FakeLab):
    """A lab that cannot be used; `touched` says what was done to it."""

    running = False

    def __init__(self, made_by: str) -> None:
        super().__init__(["hostnames-1", "hostnames-2", "hostnames-3"])
        self.made_by = made_by
        self.touched: list[str] = []

    def down(self) -> None:
        self.touched.append("down")

    def up(self, *_: Any, **keywords: Any) -> None:
        self.touched.append(f"up by {keywords['made_by']}")


def test_a_lab_that_the_demo_did_not_make_is_left_alone() -> None:
    lab = ForeignLab("")
    with pytest.raises(DemoError, match="is built only half, and the demo takes no lab down"):
        demo.run(lab, io.StringIO())  # type: ignore[arg-type]
    out = io.StringIO()
    demo.take_down(lab, out)  # type: ignore[arg-type]
    assert "stays; `ebpf-lb lab down --name fake` ends it" in out.getvalue()
    assert lab.touched == []


def test_a_broken_lab_of_the_demos_own_is_built_anew() -> None:
    lab = ForeignLab(demo.MADE_BY)
    demo.run(lab, io.StringIO())  # type: ignore[arg-type]
    assert lab.touched == ["down", "up by demo"]
    demo.take_down(lab, io.StringIO())  # type: ignore[arg-type]
    assert lab.touched[-1] == "down"

"""What the tutorial leaves alone: another run of a step, labs that it did not make; and what it
does not leave behind when it is interrupted."""

import io
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from ebpf_lb.errors import UserError
from ebpf_lb.lab.cluster import Lab
from ebpf_lb.lessons.tutorial import beside
from ebpf_lb.lessons.tutorial.stage import set_up


class Objects:
    """An API server that takes everything."""

    def __init__(self) -> None:
        self.done: list[str] = []

    def create(self, path: str, body: dict[str, Any]) -> None:
        self.done.append(f"create {body['metadata']['name']}")

    def delete(self, path: str) -> None:
        self.done.append(f"delete {path.rpartition('/')[2]}")


def test_a_step_that_is_being_gone_through_is_not_disturbed(tmp_path: Path) -> None:
    objects = Objects()
    made = SimpleNamespace(
        name="lab", names=SimpleNamespace(dir=tmp_path), options=None, client=objects
    )
    lab = cast(Lab, made)
    with set_up(lab, "dns", io.StringIO()):
        complaint = "step dns is being gone through in lab 'lab' already"
        with pytest.raises(UserError, match=complaint), set_up(lab, "dns", io.StringIO()):
            pass
        with set_up(lab, "kinds", io.StringIO()):  # another step is nobody's concern
            pass
        assert objects.done == [
            "create tutorial-dns", "create tutorial-kinds", "delete tutorial-kinds",
        ]  # fmt: skip
    with set_up(lab, "dns", io.StringIO()):
        pass
    assert objects.done[-1] == "delete tutorial-dns"


class Beside:
    """A lab beside, as far as it is asked."""

    downs: list[str] = []  # noqa: RUF012
    there: dict[str, str] = {}  # noqa: RUF012

    def __init__(self, name: str) -> None:
        self.name = name
        self.exists = name in self.there
        self.made_by = self.there.get(name, "")

    def down(self) -> None:
        self.downs.append(self.name)


@pytest.fixture
def labs(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> type[Beside]:
    """Making one takes for ever."""
    patient = tmp_path / "patient"
    patient.write_text("#!/bin/sh\nexec sleep 600\n")
    patient.chmod(0o755)
    monkeypatch.setattr(beside, "Lab", Beside)
    monkeypatch.setattr(beside.sys, "executable", str(patient))
    monkeypatch.setattr(Beside, "downs", [])
    monkeypatch.setattr(Beside, "there", {})
    return Beside


OWN = cast(Lab, SimpleNamespace(name="mine", options=SimpleNamespace(family="dual")))


@pytest.mark.parametrize("made_by", ["", "demo"])
def test_a_lab_of_others_is_left_alone(labs: type[Beside], made_by: str) -> None:
    labs.there["mine-udp"] = made_by
    complaint = "a lab 'mine-udp', and there is one that it did not make: .*down --name mine-udp"
    with (
        pytest.raises(beside.BesideError, match=complaint),
        beside.labs_beside(OWN, ["vxlan", "udp"]),
    ):
        pass
    assert labs.downs == []


def test_labs_that_are_still_coming_up_are_removed_at_an_interruption(labs: type[Beside]) -> None:
    labs.there["mine-udp"] = beside.MADE_BY  # an interrupted run's
    making = []
    with (
        pytest.raises(KeyboardInterrupt),
        beside.labs_beside(OWN, ["vxlan", "udp"]) as coming,
    ):
        making = [one._making for one in coming.values()]
        assert labs.downs == ["mine-vxlan", "mine-udp"]
        raise KeyboardInterrupt
    assert len(making) == 2 and all(process.returncode is not None for process in making)
    assert labs.downs == ["mine-vxlan", "mine-udp"] * 2

"""The record and its lock."""

import json
import os
from pathlib import Path

import pytest

from ebpf_lb.lab import names
from ebpf_lb.lab.names import LabNames
from ebpf_lb.lab.options import Options
from ebpf_lb.lab.processes import Process
from ebpf_lb.lab.state import BusyError, NotUpError, State, StrangeStateError, locked


@pytest.fixture
def lab(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> LabNames:
    monkeypatch.setattr(names, "LABS", tmp_path)
    return LabNames("some")


def test_what_is_saved_is_loaded(lab: LabNames) -> None:
    with pytest.raises(NotUpError, match="lab up --name some"):
        State.load(lab)
    with locked(lab):
        kept = State(lab, Options(nodes=7, family="ipv6"), True, {"kubelet": Process(12, 34)})
        kept.save()
    assert State.load(lab) == kept


def test_a_record_of_another_version_is_explained(lab: LabNames) -> None:
    with locked(lab):
        State(lab, Options()).save()
    stored = json.loads(lab.state_file.read_text())
    stored["options"]["from_the_future"] = 1
    lab.state_file.write_text(json.dumps(stored))
    with pytest.raises(StrangeStateError, match="lab down --name some"):
        State.load(lab)


def test_one_at_a_time(lab: LabNames) -> None:
    with locked(lab), pytest.raises(BusyError, match="wait until it has ended"), locked(lab):
        pytest.fail("locked twice")
    with locked(lab):
        pass


def test_a_process_that_begins_meanwhile_does_not_hold_the_lock(lab: LabNames) -> None:
    """Between fork and exec it has all files of the one that begins it."""
    reads, writes = os.pipe()
    with locked(lab):
        child = os.fork()
        if not child:
            os.close(writes)
            os.read(reads, 1)
            os._exit(0)
    try:
        with locked(lab):
            pass
    finally:
        os.close(writes)
        os.close(reads)
        os.waitpid(child, 0)


def test_a_process_is_not_taken_for_a_later_one_of_the_same_id() -> None:
    me = os.getpid()
    start = int(Path(f"/proc/{me}/stat").read_text().rpartition(")")[2].split()[19])
    assert Process(me, start).alive
    assert not Process(me, start - 1).alive

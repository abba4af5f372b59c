"""systemd's own check takes the unit, and the unit gives the agent no more than the DaemonSet."""

import configparser
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import yaml

from tests.support.tools import PROJECT

UNIT = PROJECT / "manifests/systemd/ebpf-lb.service"
WORST = 5.0  # of 10, by systemd's measure of what a service could do


def sections() -> configparser.ConfigParser:
    parser = configparser.ConfigParser(strict=True, interpolation=None)
    parser.optionxform = str  # type: ignore[assignment, method-assign]
    parser.read(UNIT)
    return parser


def installed(folder: Path) -> Path:
    """The unit, for a machine where the program lies elsewhere."""
    program = Path(sys.executable).with_name("ebpf-lb")
    assert program.exists()
    file = folder / UNIT.name
    file.write_text(UNIT.read_text().replace("/usr/bin/ebpf-lb", str(program)))
    return file


def analyze(*words: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["systemd-analyze", *words], capture_output=True, text=True, check=False, cwd="/"
    )


def test_systemd_takes_it(tmp_path: Path) -> None:
    done = analyze("verify", "--man=no", installed(tmp_path))
    ours = [line for line in done.stderr.splitlines() if UNIT.name in line]
    assert done.returncode == 0 and not ours, done.stderr


def test_a_mistake_in_it_is_noticed(tmp_path: Path) -> None:
    file = installed(tmp_path)
    file.write_text(file.read_text().replace("NoNewPrivileges=yes", "NoNewPriviledges=yes"))
    assert "NoNewPriviledges" in analyze("verify", "--man=no", file).stderr


def test_it_could_do_little_harm(tmp_path: Path) -> None:
    done = analyze("security", "--offline=yes", "--no-pager", installed(tmp_path))
    found = re.search(r"Overall exposure level for ebpf-lb.service: ([\d.]+)", done.stdout)
    assert found is not None and float(found[1]) <= WORST, done.stdout + done.stderr


def test_it_has_the_daemon_sets_rights_and_words() -> None:
    (daemon_set,) = (
        one
        for one in yaml.safe_load_all((PROJECT / "manifests/base/ebpf-lb.yaml").read_text())
        if one["kind"] == "DaemonSet"
    )
    pod: Any = daemon_set["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    service = sections()["Service"]
    capabilities = container["securityContext"]["capabilities"]["add"]
    assert service["CapabilityBoundingSet"].split() == [f"CAP_{one}" for one in capabilities]
    assert service["ExecStartPre"].startswith("+/usr/bin/ebpf-lb agent --init-only --config ")
    assert service["ExecStart"].startswith("/usr/bin/ebpf-lb agent --config ")

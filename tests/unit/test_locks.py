"""What is pinned for whom: the agent's image, the lab, development."""

import re
import tomllib
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
LOCKS = ("agent", "lab", "dev")


def pinned(lock: str) -> dict[str, str]:
    text = (ROOT / "requirements" / f"{lock}.lock").read_text()
    return dict(re.findall(r"^([a-z0-9._-]+)==(\S+)", text, re.MULTILINE))


def asked_for(extra: str = "") -> set[str]:
    project: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    wanted = project["optional-dependencies"][extra] if extra else project["dependencies"]
    return {re.split(r"[><=\[]", name)[0].lower().replace("_", "-") for name in wanted}


@pytest.mark.parametrize(("smaller", "larger"), [("agent", "lab"), ("lab", "dev")])
def test_each_lock_has_what_the_one_before_has(smaller: str, larger: str) -> None:
    assert pinned(smaller).items() <= pinned(larger).items()


def test_what_is_asked_for_is_pinned() -> None:
    assert asked_for() <= pinned("agent").keys()
    assert asked_for("lab") <= pinned("lab").keys()
    assert asked_for("dev") | asked_for("docs") <= pinned("dev").keys()


def test_the_agent_has_nothing_of_the_lab_and_of_development() -> None:
    foreign = asked_for("dev") | asked_for("docs") | {"rich", "hatchling", "cryptography"}
    foreign |= asked_for("lab") - {"aiohttp"}  # which the Kubernetes library asks for, too
    assert not pinned("agent").keys() & foreign


@pytest.mark.parametrize("lock", [*LOCKS, "build"])
def test_every_file_is_known_by_its_hash(lock: str) -> None:
    text = (ROOT / "requirements" / f"{lock}.lock").read_text()
    assert "http" not in re.sub(r"^[a-z0-9._-]*http[a-z0-9._-]*==", "", text, flags=re.MULTILINE)
    blocks = re.split(r"^(?=[a-z0-9._-]+==)", text, flags=re.MULTILINE)[1:]
    assert blocks and all("--hash=sha256:" in block for block in blocks)

"""Other people's programs that read our manifests: `make setup` unpacks them."""

import subprocess
from pathlib import Path

from tests.capabilities import Capability

PROJECT = Path(__file__).parents[2]
FOLDER = PROJECT / ".venv/tools"
TOOLS = Capability(
    "kubectl, helm and promtool",
    "`make setup` unpacks them on x86-64",
    lambda: all((FOLDER / name).exists() for name in ("kubectl", "helm", "promtool")),
)


def tool(name: str, *words: str | Path) -> str:
    """What it prints; it must be well."""
    done = subprocess.run(
        [FOLDER / name, *words], capture_output=True, text=True, check=False, cwd="/"
    )
    assert done.returncode == 0, f"{name} {words[0]}: {done.stdout}{done.stderr}"
    return done.stdout

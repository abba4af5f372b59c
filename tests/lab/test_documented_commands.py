"""What the pages for operators tell to type on a node works there, and says that all is well."""

import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest

from ebpf_lb.lab.cluster import Lab
from ebpf_lb.lab.names import PODS
from tests.lab.small_node import NODE
from tests.support.documented import PAGES, commands

FILES = ("FILE", "/etc/ebpf-lb/config.yaml")
HARMFUL = "ebpf-lb cleanup"  # test_capabilities.py and tests/datapath/test_attach.py run it
LINES = sorted(
    {
        line.replace(FILES[1], FILES[0])
        for page in PAGES
        for line in commands(page)
        if line.startswith("ebpf-lb ") and not line.startswith(HARMFUL)
    }
)


@pytest.fixture(scope="module")
def file(lab: Lab, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A node's configuration, as one has it."""
    node = lab.node(NODE)
    made = tmp_path_factory.mktemp("etc") / "config.yaml"
    networks = ", ".join(f'"{one}"' for one in PODS.networks(node.families))
    made.write_text(
        f"nodeName: {NODE}\nkubeconfig: {lab.names.kubeconfig(NODE)}\n"
        f"clusterCidrs: [{networks}]\nbpffs: {node.bpffs}\ncgroup: {node.cgroup}\n"
    )
    yield made


def test_there_are_some() -> None:
    assert len(LINES) >= 4


@pytest.mark.parametrize("line", LINES)
def test_it_works(lab: Lab, file: Path, line: str) -> None:
    words = [str(file) if word == FILES[0] else word for word in shlex.split(line)]
    done = lab.exec(NODE, words)
    assert done.returncode == 0 and done.stdout, f"{line}: {done.stdout}{done.stderr}"

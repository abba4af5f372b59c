"""All of upstream's specs that kube-proxy passes, by the DaemonSet in its place: `make baseline`.

It takes twenty minutes for each layout of pods' networks; `CNI=bridge` and `CNI=ptp` run one."""

import os
from pathlib import Path

import pytest

from tests.capabilities import LAB, needs
from tests.cluster.rig_control import RIG, lines, rig, running
from tests.cluster.test_kubernetes import AGENT, LAYOUTS, THE_PROGRAMS

BASELINE = RIG.parent / "baseline-kube-proxy-nftables.txt"

pytestmark = [needs(*LAB, THE_PROGRAMS), pytest.mark.timeout(7200)]


@pytest.mark.parametrize("layout", LAYOUTS)
def test_all_that_kube_proxy_passes(layout: str) -> None:
    wanted = [line for line in lines(BASELINE.read_text()) if line[0] != "#"]
    with running("--cni", layout, "--proxy", os.environ.get("PROXY", AGENT)):
        done = rig("e2e", "--baseline", str(BASELINE), "--procs", os.environ.get("PROCS", "8"))
    Path(RIG.parents[3] / "build" / f"baseline-{layout}.txt").write_text(done.stdout)
    assert done.returncode == 0, done.stdout
    assert f"{len(wanted)} passed" in done.stdout, done.stdout

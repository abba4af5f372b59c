"""Scripts by chance: none shows a difference. `make test-deep` plays many more."""

from __future__ import annotations

from hypothesis import HealthCheck, Phase, given, settings

from ebpf_lb.model.values import Family
from tests.capabilities import CGROUP2, DATAPATH, IPV6, NFTABLES, RAW_SOCKETS, needs
from tests.differential.compare import Peers, minimal
from tests.differential.random_scripts import scripts
from tests.differential.script import Script
from tests.support.chance import DEPTH, SEED, times

pytestmark = needs(*DATAPATH, CGROUP2, NFTABLES, IPV6, RAW_SOCKETS)


@settings(
    max_examples=times(40),
    # the same ones at each run: what others find, `make test-deep` and another seed are for
    derandomize=SEED is None and DEPTH == 1,
    # a step that is left out is what makes a script shorter: `minimal` knows, and is quick
    phases=(Phase.explicit, Phase.reuse, Phase.generate),
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)
@given(script=scripts())
def test_no_script_shows_a_difference(peers: Peers, family: Family, script: Script) -> None:
    if peers.difference(family, script):
        least = minimal(peers, family, script)
        raise AssertionError(f"{least}\n{peers.difference(family, least)}")

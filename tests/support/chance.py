"""How much of what chance brings is looked at, and how to see it again.

`make test-deep` looks at DEPTH times as much, from another seed in every run, which it says. With a
seed given, everything comes again; without, a run in CI begins where every such run does.
"""

import os

DEPTH_VARIABLE, SEED_VARIABLE = "EBPF_LB_TEST_DEPTH", "EBPF_LB_TEST_SEED"
DEPTH = int(os.environ.get(DEPTH_VARIABLE) or 1)
SEED = int(os.environ.get(SEED_VARIABLE) or 0) or None


def times(number: int) -> int:
    """So many examples, rounds, episodes: as many as `make test` has time for, or more."""
    return number * DEPTH

"""Maglev's tables: even, the same everywhere, and nearly unmoved by what leaves or comes."""

import random
from collections import Counter
from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ebpf_lb.plan.maglev import SIZES, size_for, table
from tests.support.chance import times


def backends(number: int, seed: int = 0) -> list[bytes]:
    """Addresses and ports as pods have them: all alike but for a few bits."""
    rng = random.Random(seed)
    hosts = rng.sample(range(1 << 16), number)
    return sorted(b"\x0a\xf4" + host.to_bytes(2) + b"\x1f\x90" for host in hosts)


def owners(names: Sequence[bytes], weights: Sequence[int] = (), size: int = 0) -> list[bytes]:
    found = table(names, weights, size or size_for(sum(weights) or len(names)))
    return [names[one] for one in found]


def as_in_the_paper(names: Sequence[bytes], size: int) -> list[int]:
    """The paper's pseudo-code, word for word but for the preferences' hash."""
    from ebpf_lb.plan.maglev import _preferences

    starts, steps = _preferences(names, size)
    orders = zip(starts, steps, strict=True)
    permutation = [[(start + j * step) % size for j in range(size)] for start, step in orders]
    next_ = [0] * len(names)
    entry = [-1] * size
    n = 0
    while True:
        for i in range(len(names)):
            c = permutation[i][next_[i]]
            while entry[c] >= 0:
                next_[i] += 1
                c = permutation[i][next_[i]]
            entry[c] = i
            next_[i] += 1
            n += 1
            if n == size:
                return entry


@pytest.mark.parametrize(("number", "size"), [(1, 11), (2, 401), (7, 1601), (30, 401), (401, 401)])
def test_the_papers_own_table(number: int, size: int) -> None:
    names = backends(number)
    assert list(table(names, (), size)) == as_in_the_paper(names, size)


def test_sizes_are_primes() -> None:
    for size in SIZES:
        assert all(size % number for number in range(2, int(size**0.5) + 1))


@pytest.mark.parametrize("number", [2, 3, 4, 5, 16, 17, 50, 64, 100, 256, 1000])
def test_shares_differ_by_one_percent_at_most(number: int) -> None:
    names = backends(number)
    counts = Counter(owners(names))
    assert len(counts) == number
    assert max(counts.values()) - min(counts.values()) <= 1
    size = sum(counts.values())
    assert max(abs(count * number / size - 1) for count in counts.values()) <= 0.01


@pytest.mark.parametrize(
    ("number", "limit"), [(2, 0), (10, 0.03), (50, 0.03), (100, 0.02), (200, 0.02), (300, 0.02)]
)
def test_little_moves_but_what_must(number: int, limit: float) -> None:
    """When one leaves, its flows move; of the others two in a hundred, at most."""
    beyond = []
    for seed in range(5):
        names = backends(number, seed)
        leaves = random.Random(seed).choice(names)
        size = size_for(number)
        before = owners(names, size=size)
        after = owners([name for name in names if name != leaves], size=size)
        others = [(a, b) for a, b in zip(before, after, strict=True) if a != leaves]
        beyond.append(sum(a != b for a, b in others) / size)
    assert max(beyond) <= limit
    # it comes back: everything is as it was
    assert owners(names, size=size) == before


def test_one_of_a_hundred_may_leave_without_another_size() -> None:
    assert size_for(100) == size_for(99) == 25601


@pytest.mark.parametrize(
    ("shares", "size"),
    [(0, 401), (1, 401), (4, 401), (5, 1601), (16, 1601), (17, 6421), (64, 6421), (65, 25601),
     (256, 25601), (257, 102407), (1024, 102407), (1025, 409609), (10_000, 409609)],
)  # fmt: skip
def test_the_size_follows_from_the_number_of_backends(shares: int, size: int) -> None:
    assert size_for(shares) == size


@pytest.mark.parametrize("replicas", [2, 3, 10, 20, 50, 100, 200, 500, 2000])
def test_a_rolling_update_of_a_usual_deployment_keeps_its_size(replicas: int) -> None:
    """A quarter more, meanwhile: Kubernetes' default maxSurge."""
    assert size_for(replicas) == size_for(replicas + -(-replicas // 4))


WEIGHTS = st.lists(st.integers(1, 20), min_size=2, max_size=12)


@settings(max_examples=times(50), deadline=None)
@given(WEIGHTS)
def test_shares_are_as_weights_say(weights: list[int]) -> None:
    names = backends(len(weights))
    shares = -(-sum(weights) // min(weights))
    size = size_for(shares)
    counts = Counter(table(names, weights, size))
    for position, weight in enumerate(weights):
        share = size * weight / sum(weights)
        assert abs(counts[position] - share) <= max(1.01, 0.011 * share)


def test_equal_weights_are_no_weights() -> None:
    names = backends(7)
    assert table(names, [5] * 7, 1601) == table(names, (), 1601)


def test_a_weight_that_changes_moves_its_share() -> None:
    names = backends(20)
    before = owners(names, [2] * 20, 6421)
    after = owners(names, [2] * 19 + [1], 6421)
    moved = sum(a != b for a, b in zip(before, after, strict=True)) / 6421
    assert moved <= 1 / 40 + 0.02


def test_one_backend_has_all() -> None:
    assert set(table([b"only"], (), 401)) == {0}


def test_any_machine_computes_the_same() -> None:
    """Golden: another result would send packets elsewhere than nodes of another version do."""
    names = [bytes([10, 0, 0, number, 0, 80]) for number in (1, 2, 3)]
    assert list(table(names, (), 11)) == [1, 0, 0, 0, 1, 2, 1, 1, 0, 2, 2]

"""Ids and regions: nothing is given out twice, and nothing is lost."""

import time
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ebpf_lb.datapath.writer.pools import Exhausted, Ids, Regions


@given(st.lists(st.integers(-6, 12), max_size=60))
def test_regions_never_overlap_and_coalesce(steps: list[int]) -> None:
    """A positive step takes so many, another gives back one of those held."""
    pool, held = Regions(64, "full"), list[tuple[int, int]]()
    for step in steps:
        if step > 0:
            try:
                held.append((pool.take(step), step))
            except Exhausted:
                assert all(size < step for _, size in pool.holes)
        elif held:
            pool.give_back(*held.pop(step % len(held)))
        places = sorted([*held, *pool.holes])
        assert sum(size for _, size in places) == 64
        assert all(a + n <= b for (a, n), (b, _) in pairwise(places))
        holes = pool.holes
        assert all(a + n < b for (a, n), (b, _) in pairwise(holes))
    for region in held:
        pool.give_back(*region)
    assert pool.holes == [(0, 64)]


def test_regions_adopt_what_is_in_use() -> None:
    pool = Regions(16, "full")
    pool.adopt([(10, 2), (4, 4)], 16)
    assert pool.holes == [(0, 4), (8, 2), (12, 4)]
    for used, size in (([(0, 2), (1, 2)], 16), ([(15, 2)], 16)):
        with pytest.raises(ValueError, match="overlaps or sticks out"):
            pool.adopt(used, size)


def test_regions_stay_fast_with_many_holes() -> None:
    pool = Regions(1 << 20, "full")
    starts = [pool.take(10) for _ in range(100_000)]
    for start in starts[::2]:
        pool.give_back(start, 10)
    started = time.process_time()
    for _ in range(5_000):
        pool.give_back(pool.take(9), 9)
    # 50,000 holes; looking through them would take minutes
    assert time.process_time() - started < 10


def test_ids_are_unique_and_zero_is_none() -> None:
    pool = Ids(6, "full")
    assert pool.take(3) == [1, 2, 3]
    pool.give_back([2])
    assert sorted(pool.take(3)) == [2, 4, 5]
    with pytest.raises(Exhausted, match="full"):
        pool.take(1)
    pool.give_back([5])
    with pytest.raises(Exhausted, match="full"):
        pool.take(2)
    assert pool.take(1) == [5]


def test_ids_adopt_what_is_in_use() -> None:
    pool = Ids(8, "full")
    pool.adopt([5, 2])
    assert pool.free == 5
    assert pool.take(5) == [1, 3, 4, 6, 7]

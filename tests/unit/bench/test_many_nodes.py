"""What is simulated of thousands of nodes follows from what was measured, and the page says it."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tests.bench import report
from tests.bench.apiserver import page, simulate
from tests.bench.apiserver.simulate import Cluster, Costs

CLUSTER = Cluster(nodes=1000, slices=10_000, changes_per_rollout=10, cpus=4, bytes_a_s=1e9)
COSTS = Costs(
    change_cpu_s=0.001,
    watch_cpu_s=10e-6,
    watch_bytes=3000,
    slice_cpu_s=20e-6,
    slice_bytes=2500,
    reconnect_cpu_s=0.001,
)


def test_load_is_what_all_changes_cost() -> None:
    idle = simulate.rollouts(CLUSTER, COSTS, 0)
    assert idle.cpus == pytest.approx(1000 * 4 / 450 * 0.001) and idle.bits_a_s == 0
    busy = simulate.rollouts(CLUSTER, COSTS, 60, seconds=3600)
    # ten changes a second, each of 11 ms and three megabytes
    assert busy.cpus - idle.cpus == pytest.approx(10 * 0.011, rel=0.05)
    assert busy.bits_a_s == pytest.approx(10 * 8 * 3e6, rel=0.05)
    assert busy.delay_s < 1


def test_more_than_can_be_done_waits_longer_and_longer() -> None:
    much = simulate.rollouts(CLUSTER, COSTS, 6000, seconds=300)
    more = simulate.rollouts(CLUSTER, COSTS, 6000, seconds=600)
    assert 1 < much.delay_s < more.delay_s
    limit = simulate.limit(CLUSTER, COSTS)
    assert simulate.rollouts(CLUSTER, COSTS, limit).delay_s <= 1
    assert simulate.rollouts(CLUSTER, COSTS, 2 * limit).delay_s > 1
    # with processors enough, the network is what it ends at: half the bytes, twice as many
    large = replace(CLUSTER, cpus=100)
    whole = simulate.limit(large, COSTS)
    half = simulate.limit(large, replace(COSTS, watch_bytes=1500))
    assert 1.7 < half / whole < 2.3


def test_all_at_once_takes_as_long_as_the_narrowest_place() -> None:
    lists = simulate.lists(CLUSTER, COSTS, jitter_s=4)
    assert (lists.last_s, lists.bound_by) == (pytest.approx(50), "processors")
    wide = simulate.lists(CLUSTER, replace(COSTS, slice_bytes=10_000), jitter_s=4)
    assert (wide.last_s, wide.bound_by) == (pytest.approx(100), "the network")
    few = simulate.lists(replace(CLUSTER, slices=10), COSTS, jitter_s=4)
    assert (few.last_s, few.bound_by) == (4, "chance")
    again = simulate.reconnects(CLUSTER, COSTS, jitter_s=0)
    assert again.last_s == pytest.approx(1)


def test_the_page_says_what_was_measured() -> None:
    part = {
        "machine": "a machine",
        "services": 100,
        "pods": 10,
        "lists": [
            {"how": "JSON, pages of 200", "bytes": 3000.0, "cpu_s": 30e-6},
            {"how": "JSON, pages of 200, gzip", "bytes": 300.0, "cpu_s": 60e-6},
            {"how": "protobuf, whole, gzip", "bytes": 150.0, "cpu_s": 30e-6},
            {"how": "streamed (sendInitialEvents), JSON", "bytes": 3100.0, "cpu_s": 75e-6},
        ],
        "changes": [
            {"encoding": name, "watches": watches, "bytes_ours": size,
             "cpu_s_ours": 0.002 + watches * each, "cpu_s_headless": 0.001, "bytes_headless": 0.0}
            for name, size, each in (("JSON", 3000.0, 20e-6), ("protobuf", 1200.0, 10e-6))
            for watches in (1, 400)
        ],
        "reconnects": {"cpu_s": 0.002},
    }  # fmt: skip
    found = page.costs(part, "JSON", "JSON, pages of 200")
    assert found.watch_cpu_s == pytest.approx(20e-6) and found.watch_bytes == 3000
    assert found.change_cpu_s == pytest.approx(0.002)
    text = page.text(part)
    assert "| JSON, pages of 200 | 3,000 | 30.0 |" in text
    assert "| JSON | 400 | 10.00 | 3,000 | 1.00 | 0 |" in text
    assert "a list of each: protobuf, whole, gzip" in text and "nan" not in text
    assert "a 10th of the bytes for 2.0 times the processor time" in text
    assert "takes the server 2.5 times the processor time of pages" in text
    assert "0.5 times the bytes and 0.5 times the processor time in a compressed list" in text


def test_the_page_is_what_the_last_run_has_left() -> None:
    assert (report.PROJECT / page.PAGE).read_text() == page.text(page.measured())

"""Thousands of nodes, from what one agent costs a real API server: second by second, what comes in,
what is done, and what waits. A simulation: nobody has run it on so many nodes.
"""

from __future__ import annotations

import random
from dataclasses import dataclass


@dataclass(frozen=True)
class Costs:
    """Seconds of the server's processors, and bytes to each node. `change_cpu_s`: of one change, by
    itself; `watch_cpu_s`: for each node that watches. `slice_*`: in a list, of each slice."""

    change_cpu_s: float
    watch_cpu_s: float
    watch_bytes: float
    slice_cpu_s: float
    slice_bytes: float
    reconnect_cpu_s: float


@dataclass(frozen=True)
class Cluster:
    """`changes_per_rollout`: of a Service's slice, while all its pods are replaced. `cpus`,
    `bytes_a_s`: what the server may use for this, and the way to the nodes carries. `watches`: of
    each node."""

    nodes: int = 5_000
    slices: int = 50_000
    changes_per_rollout: int = 20
    cpus: float = 16
    bytes_a_s: float = 25e9 / 8
    watches: int = 4
    watch_lasts_s: float = 450


@dataclass(frozen=True)
class Load:
    """`cpus`, `bits_a_s`: on average. `delay_s`: how late the last node hears of a change, at
    worst."""

    cpus: float
    bits_a_s: float
    delay_s: float


def rollouts(
    cluster: Cluster, costs: Costs, a_minute: float, seconds: int = 600, seed: int = 1
) -> Load:
    """Services are rolled over at random moments, each within a minute; watches end and begin all
    the while."""
    chance = random.Random(seed)
    due = [0] * (seconds + 60)
    for _ in range(round(a_minute * seconds / 60)):
        begin = chance.uniform(0, seconds)
        for _ in range(cluster.changes_per_rollout):
            due[int(begin + chance.uniform(0, 60))] += 1
    again = cluster.nodes * cluster.watches / cluster.watch_lasts_s * costs.reconnect_cpu_s
    a_change = costs.change_cpu_s + cluster.nodes * costs.watch_cpu_s
    cpu_waits = bytes_wait = cpu = sent = worst = 0.0
    for changes in due[:seconds]:
        work, size = again + changes * a_change, changes * cluster.nodes * costs.watch_bytes
        cpu, sent = cpu + work, sent + size
        cpu_waits, bytes_wait = cpu_waits + work, bytes_wait + size
        worst = max(worst, cpu_waits / cluster.cpus, bytes_wait / cluster.bytes_a_s)
        cpu_waits = max(0.0, cpu_waits - cluster.cpus)
        bytes_wait = max(0.0, bytes_wait - cluster.bytes_a_s)
    return Load(cpu / seconds, 8 * sent / seconds, worst)


def limit(cluster: Cluster, costs: Costs, within_s: float = 1.0) -> int:
    """How many rollouts a minute there may be until news come later than that."""
    low, high = 0, 1
    while rollouts(cluster, costs, high).delay_s <= within_s and high < 1 << 20:
        low, high = high, 2 * high
    while high - low > max(1, low // 20):
        middle = (low + high) // 2
        if rollouts(cluster, costs, middle).delay_s <= within_s:
            low = middle
        else:
            high = middle
    return low


@dataclass(frozen=True)
class Storm:
    """`last_s`: when the last node is served; `bound_by`: what it waits for."""

    last_s: float
    bound_by: str


def lists(cluster: Cluster, costs: Costs, jitter_s: float) -> Storm:
    """All nodes list all slices, as after a 410."""
    cpu = cluster.slices * costs.slice_cpu_s
    size = cluster.slices * costs.slice_bytes
    return _storm(cluster, cpu, size, jitter_s)


def reconnects(cluster: Cluster, costs: Costs, jitter_s: float) -> Storm:
    """All nodes connect their watches again, from where they were, as after a server's restart."""
    return _storm(cluster, cluster.watches * costs.reconnect_cpu_s, 0.0, jitter_s)


def _storm(cluster: Cluster, cpu_s: float, size: float, jitter_s: float) -> Storm:
    needs = {
        "processors": cluster.nodes * cpu_s / cluster.cpus,
        "the network": cluster.nodes * size / cluster.bytes_a_s,
        "chance": jitter_s,
    }
    last_s, bound_by = max((took, what) for what, took in needs.items())
    return Storm(last_s, bound_by)

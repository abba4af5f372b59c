"""docs/reference/many-nodes.md, of what was measured and what follows from it."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from tests.bench.apiserver import simulate
from tests.bench.apiserver.simulate import Cluster, Costs

PAGE = Path("docs/reference/many-nodes.md")
MEASURED = Path(__file__).with_name("measured.json")
RATES = (1, 10, 60, 300, 1200)
JITTER_S = 4.0  # WatchSettings.relist_within_s
OURS, KUBE_PROXYS = "JSON", "protobuf"
Part = Mapping[str, Any]

_INTRO = """\
# Thousands of nodes

Written by `make bench-apiserver`, not by hand. Every agent watches every EndpointSlice, so what one
of them costs the API server is paid as many times as there are nodes. First what that is, with the
real API server and real watch connections; then a simulation from these figures, of more nodes
than we have. Processor time is the server's own, without etcd's.
"""
_LISTS = """\
## A list

All EndpointSlices, and what each of them takes in it. An agent lists when it starts, and when the
server has forgotten what it last saw (410); after that it watches, and goes on from there when a
connection ends.
"""
_CHANGES = """\
## A change

One endpoint of a slice becomes ready, or not. The server's time for it grows with the watches that
hear of it. A headless Service's slice is left out by the selector that agents ask with, as
kube-proxy does: it is sent to nobody.
"""
_SIMULATED = """\
## Simulated
"""


_HELPS = """\
## What helps
"""
_PAGES, _PACKED = "JSON, pages of 200", "JSON, pages of 200, gzip"
_STREAMED, _THEIRS = "streamed (sendInitialEvents), JSON", "protobuf, whole, gzip"


def measured() -> Part:
    """What the last run has left."""
    found: Part = json.loads(MEASURED.read_text())
    return found


def text(part: Part) -> str:
    return "\n".join(
        [
            _INTRO,
            f"{part['machine']}. {part['services']:,} Services, {part['pods']} endpoints each.\n",
            _LISTS,
            *_table(
                ("how", "bytes a slice", "server's µs a slice"),
                (
                    (one["how"], f"{one['bytes']:,.0f}", f"{1e6 * one['cpu_s']:.1f}")
                    for one in part["lists"]
                ),
            ),
            _CHANGES,
            *_table(
                (
                    "encoding",
                    "watches",
                    "server's ms",
                    "bytes to each",
                    "headless: ms",
                    "headless: bytes",
                ),
                (
                    (
                        one["encoding"],
                        one["watches"],
                        f"{1000 * one['cpu_s_ours']:.2f}",
                        f"{one['bytes_ours']:,.0f}",
                        f"{1000 * one['cpu_s_headless']:.2f}",
                        f"{one['bytes_headless']:,.0f}",
                    )
                    for one in part["changes"]
                ),
            ),
            f"A watch that connects again takes the server "
            f"{1000 * part['reconnects']['cpu_s']:.2f} ms, TLS included.\n",
            _SIMULATED,
            *_simulated(part),
            _HELPS,
            *_conclusions(part),
        ]
    )


def costs(part: Part, encoding: str, how: str) -> Costs:
    """By the fewest and the most watches: what does not grow with them, and what does."""
    rows = sorted(
        (one for one in part["changes"] if one["encoding"] == encoding),
        key=lambda one: one["watches"],
    )
    few, many = rows[0], rows[-1]
    each = (many["cpu_s_ours"] - few["cpu_s_ours"]) / (many["watches"] - few["watches"])
    listed = next(one for one in part["lists"] if one["how"] == how)
    return Costs(
        max(few["cpu_s_ours"] - few["watches"] * each, 0.0),
        max(each, 0.0),
        many["bytes_ours"],
        listed["cpu_s"],
        listed["bytes"],
        part["reconnects"]["cpu_s"],
    )


def _simulated(part: Part) -> Iterator[str]:
    cluster = Cluster()
    yield (
        f"{cluster.nodes:,} nodes, {cluster.slices:,} Services with one slice each; an API server "
        f"with {cluster.cpus:.0f} processors for this and {8 * cluster.bytes_a_s / 1e9:.0f} Gbit/s "
        f"to the nodes. A rolling update changes a slice {cluster.changes_per_rollout} times in "
        "a minute. Late is the last node, at the worst moment of ten minutes.\n"
    )
    loads = {name: costs(part, name, part["lists"][0]["how"]) for name in (OURS, KUBE_PROXYS)}
    rows: list[Sequence[object]] = []
    for rate in RATES:
        for name, of in loads.items():
            load = simulate.rollouts(cluster, of, rate)
            rows.append(
                (
                    f"{rate:,}",
                    name,
                    f"{load.cpus:.2f}",
                    f"{load.bits_a_s / 1e9:.2f}",
                    f"{load.delay_s:,.1f}",
                )
            )
    yield from _table(
        ("rolling updates a minute", "encoding", "processors", "Gbit/s", "late, s"), rows
    )
    ends = " and ".join(
        f"{simulate.limit(cluster, of):,} with {name}" for name, of in loads.items()
    )
    yield f"It ends, in that news are a second late, at {ends} rolling updates a minute.\n"
    yield (
        "All nodes at once: after a restart of the server they connect again from where they were; "
        "after a 410 they list. Chance spreads lists over "
        f"{JITTER_S:.0f} s; what follows is when the last node has its own.\n"
    )
    again = simulate.reconnects(cluster, loads[OURS], 0.0)
    yield from _table(
        ("what", "last node after, s", "bound by"),
        [
            (
                f"{cluster.watches} watches of each connect again",
                f"{again.last_s:,.1f}",
                again.bound_by,
            ),
            *(
                (f"a list of each: {one['how']}", f"{storm.last_s:,.0f}", storm.bound_by)
                for one in part["lists"]
                for storm in [simulate.lists(cluster, costs(part, OURS, one["how"]), JITTER_S)]
            ),
        ],
    )


def _conclusions(part: Part) -> Iterator[str]:
    lists = {one["how"]: one for one in part["lists"]}
    pages, packed = lists[_PAGES], lists[_PACKED]
    streamed, theirs = lists[_STREAMED], lists[_THEIRS]
    yield (
        f"- Lists are asked for compressed: a {pages['bytes'] / packed['bytes']:.0f}th of the "
        f"bytes for {packed['cpu_s'] / pages['cpu_s']:.1f} times the processor time. Taken."
    )
    yield (
        "- The selector leaves out headless Services and those of other proxies, at the server. "
        "Taken."
    )
    yield (
        "- After a connection's end, and after the server's restart, a watch goes on from the last "
        "version that was seen; bookmarks keep that one young. So lists are rare. Taken."
    )
    yield (
        f"- Chance spreads lists that all need at once over {JITTER_S:.0f} s, and watches' ends "
        "over five minutes. Taken; at so many nodes the server's own queues spread lists further."
    )
    yield (
        f"- A streamed list (sendInitialEvents) in JSON takes the server "
        f"{streamed['cpu_s'] / pages['cpu_s']:.1f} times the processor time of pages, and as many "
        "bytes as uncompressed ones, since a watch is not compressed. What it spares is the "
        "server's memory. Not taken."
    )
    yield (
        f"- Protobuf, which kube-proxy asks for: {theirs['bytes'] / packed['bytes']:.1f} times the "
        f"bytes and {theirs['cpu_s'] / packed['cpu_s']:.1f} times the processor time in a "
        f"compressed list, {_a_change(part, KUBE_PROXYS) / _a_change(part, OURS):.1f} times the "
        "bytes of a change. Not taken: a change is encoded once for all watches that ask alike, "
        "so that the server gains little, and every node would need a decoder."
    )
    yield (
        "- Several API servers share all of it, since each node is connected to one of them. Who "
        "wants to go further has to send nodes less than everything, which takes a server "
        "between.\n"
    )


def _a_change(part: Part, encoding: str) -> float:
    return max(float(one["bytes_ours"]) for one in part["changes"] if one["encoding"] == encoding)


def _table(head: Sequence[str], rows: Iterable[Sequence[object]]) -> Iterator[str]:
    for cells in (head, ["---"] * len(head), *rows):
        yield "| " + " | ".join(map(str, cells)) + " |"
    yield ""

"""Whatever a masqueraded flow cannot get, its packet ends with the reason for just that: never as
one for which the kernel follows no more calls."""

import multiprocessing
import resource
import socket
import struct
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from multiprocessing.connection import Connection

import pytest

from tests.datapath.node import serve_at_node_port
from tests.datapath.test_uplink import Hook, World, first, hook, uplink, world
from tests.datapath.words import ESTABLISHED, SIGNPOST, TENTATIVE, in_state
from tests.support.packets import UDP

__all__ = ["hook", "uplink", "world"]  # the fixtures

SNAT_PORTS = range(32768, 61000)  # Linux' own range: bpf/path/new_flow.h


@pytest.fixture(autouse=True)
def served(hook: Hook, world: World) -> None:
    serve_at_node_port(hook.kernel, world, UDP)


def ends(hook: Hook, world: World, reason: str) -> None:
    """The flow's next packet is dropped for this reason alone."""
    before = hook.kernel.counters()
    assert hook("uplink_ingress", first(world, UDP)).dropped
    assert hook.kernel.counters() - before == {reason: 1}


def hold_ports(address: str, ports: range, ready: Connection) -> None:
    """In a process of its own: how many files one may have open is limited."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    resource.setrlimit(resource.RLIMIT_NOFILE, (resource.getrlimit(resource.RLIMIT_NOFILE)[1],) * 2)
    held = [socket.socket(family, socket.SOCK_DGRAM) for _ in ports]
    for own, port in zip(held, ports, strict=True):
        own.bind((address, port))
    ready.send(len(held))
    time.sleep(3600)  # until it is terminated


@contextmanager
def every_port_taken(world: World) -> Iterator[None]:
    """By UDP sockets of the node's own."""
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    fork, step = multiprocessing.get_context("fork"), min(hard - 200, len(SNAT_PORTS))
    with ExitStack() as ends:
        for at in range(0, len(SNAT_PORTS), step):
            here, there = fork.Pipe()
            child = fork.Process(
                target=hold_ports, args=(world.node, SNAT_PORTS[at : at + step], there)
            )
            child.start()
            ends.callback(child.join)
            ends.callback(child.terminate)
            assert here.recv()
        yield


@pytest.mark.rule("CO-29")
def test_no_port_is_left(hook: Hook, world: World) -> None:
    assert first(world, UDP).source_port in SNAT_PORTS
    with every_port_taken(world):
        ends(hook, world, "SNAT_PORTS")
    assert hook.through(first(world, UDP)).packet.source == world.node


def change_words(hook: Hook, change: Callable[[int], int]) -> None:
    """Of every entry in the connection table."""
    with hook.kernel.open("flows") as table:
        for index in range(table.max_entries):
            key = struct.pack("=I", index)
            entries = bytearray(table.lookup(key) or b"")
            for at in range(0, len(entries), len(entries) // 4):
                [word] = struct.unpack_from("=Q", entries, at)
                struct.pack_into("=Q", entries, at, change(word))
            table.update(key, bytes(entries))


@pytest.mark.rule("CO-30")
def test_no_room_is_left(hook: Hook, world: World) -> None:
    """All entries are established flows, of somebody else."""
    hook("uplink_ingress", first(world, UDP).but(source_port=40001))
    word = in_state(hook.kernel.flows()[0][0], ESTABLISHED)
    change_words(hook, lambda _: word)
    ends(hook, world, "FLOW_TABLE_FULL")


def test_another_processor_never_gets_done(hook: Hook, world: World) -> None:
    """It was to create the same flow, and stopped just before it stood. Where its place in
    the table is the lower one it goes first, for ever: half of the time, by chance."""
    clients, outcomes = range(1024, 1024 + 48), []  # ports that are never chosen to masquerade with
    for port in clients:
        hook.kernel.forget_flows()
        sent = first(world, UDP).but(source_port=port)
        hook("uplink_ingress", sent)
        change_words(
            hook,
            lambda word: in_state(word, TENTATIVE) if word and not word & SIGNPOST else word,
        )
        before = hook.kernel.counters()
        dropped = hook("uplink_ingress", sent).dropped
        counted = hook.kernel.counters() - before
        for also in ("XDP", "MASQUERADED"):  # of those that XDP finishes
            counted.pop(also, None)
        assert counted == ({"CONTENTION": 1} if dropped else {"NEW": 1, "ESTABLISHED": 1})
        outcomes.append(dropped)
    assert 0 < sum(outcomes) < len(clients)

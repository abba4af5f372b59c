"""Which sockets are closed, and when one looks for them at all."""

import errno
import socket

import pytest

from ebpf_lb.agent.upkeep.stale_sockets import Translated
from ebpf_lb.datapath.sock_diag import UdpSocket
from ebpf_lb.model.values import parse_address
from tests.unit.agent.fakes import Agent
from tests.unit.agent.test_loop import lists

GONE, THERE = parse_address("10.0.0.1"), parse_address("10.0.0.2")


def connected(cookie: int, address: bytes, port: int = 53) -> UdpSocket:
    return UdpSocket(cookie, address, port, socket.AF_INET, b"")


@pytest.fixture
def agent() -> Agent:
    """Socket 1 asks a backend that left, socket 2 one that serves."""
    made = Agent()
    made.writer.served[7] = {(GONE, 53), (THERE, 53)}
    made.translated = [Translated(1, GONE, 53, 7), Translated(2, THERE, 53, 7)]
    made.diag.sockets = [connected(1, GONE), connected(2, THERE), connected(3, GONE)]
    made.tell(*lists())
    made.second()
    assert made.diag.listings == 0
    return made


def leave(agent: Agent) -> None:
    agent.writer.served[7] = {(THERE, 53)}
    agent.writer.udp_departures += 1
    agent.second()


def test_only_sockets_that_were_translated_to_what_left(agent: Agent) -> None:
    leave(agent)
    assert agent.diag.destroyed == [connected(1, GONE)]
    assert agent.stale_sockets.closed == 1
    for _ in range(3):
        agent.second()
    assert agent.diag.listings == 1  # nothing left since


def test_a_service_that_is_gone_serves_nobody(agent: Agent) -> None:
    del agent.writer.served[7]
    agent.writer.udp_departures += 1
    agent.second()
    assert agent.diag.destroyed == [connected(1, GONE), connected(2, THERE)]


@pytest.mark.parametrize("now", [connected(1, THERE), connected(1, GONE, 54), connected(9, GONE)])
def test_a_socket_with_another_peer_by_now_is_left_alone(agent: Agent, now: UdpSocket) -> None:
    agent.diag.sockets = [now]
    leave(agent)
    assert agent.diag.destroyed == []


def test_what_left_while_no_agent_ran() -> None:
    agent = Agent()
    agent.translated = [Translated(1, GONE, 53, 7)]
    agent.diag.sockets = [connected(1, GONE)]
    agent.second()
    assert agent.diag.destroyed == []  # nothing is known yet
    agent.tell(*lists())
    agent.second()
    assert agent.diag.destroyed == [connected(1, GONE)]


def test_a_kernel_that_cannot_is_told_once_and_not_asked_again(agent: Agent) -> None:
    agent.diag.error = OSError(errno.EOPNOTSUPP, "Operation not supported")
    leave(agent)
    leave(agent)
    assert agent.diag.listings == 1
    assert "CONFIG_INET_DIAG_DESTROY" in agent.loop.status()["staleSocketProblem"]
    assert len(agent.log.of("stale sockets stay")) == 1


def test_a_passing_failure_is_tried_again(agent: Agent) -> None:
    agent.diag.error = OSError(errno.ENOBUFS, "No buffer space available")
    leave(agent)
    agent.diag.error = None
    agent.second()
    assert agent.diag.destroyed == [connected(1, GONE)]
    assert agent.loop.status()["staleSocketProblem"] == ""

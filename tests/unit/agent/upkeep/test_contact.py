"""An outage of the API server is told once, by a cause, and its end as well."""

import pytest

from ebpf_lb.agent.upkeep.contact import CUT_OFF_S, Contact
from tests.unit.agent.fakes import Clock, Log

REFUSED = "the API server https://api cannot be reached: connection refused"
BROKE = "the connection broke: it closed the connection without an answer"


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def log() -> Log:
    return Log()


@pytest.fixture
def contact(clock: Clock, log: Log) -> Contact:
    return Contact("https://api", clock, log)


def test_one_line_for_all_kinds_and_attempts(contact: Contact, log: Log) -> None:
    for _ in range(100):
        for kind in ("services", "nodes", "endpointslices"):
            contact.lost(kind, BROKE)
            contact.lost(kind, REFUSED)
    assert [line["cause"] for line in log.of("the API server is not heard")] == [BROKE, REFUSED]


def test_causes_that_never_repeat_do_not_fill_the_log(contact: Contact, log: Log) -> None:
    for number in range(100):
        contact.lost("services", f"cause {number}")
    assert len(log.lines) == 5


def test_cut_off_for_a_minute_is_said_once_with_since_when_and_why(
    contact: Contact, clock: Clock, log: Log
) -> None:
    contact.lost("services", REFUSED)
    clock.now += CUT_OFF_S - 1
    contact.check()
    assert contact.problem == "" and not log.of("cut off from the API server")
    clock.now += 1
    for _ in range(3):
        contact.check()
    [line] = log.of("cut off from the API server")
    assert "60 s" in line["problem"] and REFUSED in line["problem"]
    assert contact.cut_off_s == 60


def test_it_ends_when_everything_is_followed_again(
    contact: Contact, clock: Clock, log: Log
) -> None:
    contact.lost("services", REFUSED)
    contact.lost("nodes", REFUSED)
    clock.now += 90
    contact.check()
    contact.found("services")
    assert contact.problem
    contact.found("nodes")
    assert contact.problem == "" and contact.cut_off_s == 0
    [line] = log.of("the API server is heard again")
    assert line["after_s"] == 90
    contact.found("nodes")
    assert len(log.of("the API server is heard again")) == 1
    contact.lost("nodes", REFUSED)  # another outage
    assert len(log.of("the API server is not heard")) == 2
    clock.now += 90
    contact.check()
    assert len(log.of("cut off from the API server")) == 2


def test_silence_counts_from_its_beginning(contact: Contact) -> None:
    contact.lost("services", "nothing was heard from the API server", silent_s=150)
    assert contact.cut_off_s == 150 and contact.problem

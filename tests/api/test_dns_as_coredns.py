"""The lab's DNS beside CoreDNS: both follow one API server, and answer the same, record by record.

What CoreDNS answers has been written down (dns_questions.py); where there is one, in the path or
named by COREDNS, it is asked whether it still does. `make cluster` builds one.
"""

import json
from collections.abc import Iterator

import pytest

from ebpf_lb.containers.dns.coredns import program
from tests.api.dns_questions import (
    OBJECTS,
    QUESTIONS,
    RECORDED,
    Json,
    Question,
    ask,
    cluster,
    ours,
    theirs,
)
from tests.api.lab_server import LabServer

RECORD: Json = json.loads(RECORDED.read_text())
COREDNS = program()
AGAIN = f"`{RECORD['made by']}` writes it anew"


@pytest.fixture(scope="module")
def api(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LabServer]:
    with cluster(tmp_path_factory.mktemp("dns")) as server:
        yield server


@pytest.fixture(scope="module")
def port(api: LabServer) -> Iterator[int]:
    with ours(api) as port:
        yield port


def test_the_record_is_about_the_same() -> None:
    assert RECORD["program"].startswith("CoreDNS-")
    assert RECORD["objects"] == json.loads(json.dumps(OBJECTS)), AGAIN
    assert list(RECORD["answers"]) == [str(question) for question in QUESTIONS], AGAIN


def test_the_record_has_something_of_every_kind() -> None:
    texts = [text for answer in RECORD["answers"].values() for text in answer["answer"]]
    kinds = {text.split()[2] for text in texts}
    assert kinds >= {"A", "AAAA", "SRV", "PTR", "CNAME", "TXT", "SOA"}
    assert {answer["truncated"] for answer in RECORD["answers"].values()} == {True, False}
    rcodes = {answer["rcode"] for answer in RECORD["answers"].values()}
    assert rcodes == {"NOERROR", "NXDOMAIN", "SERVFAIL"}


@pytest.mark.parametrize("question", QUESTIONS, ids=str)
def test_the_same_answer(port: int, question: Question) -> None:
    assert ask(port, question) == RECORD["answers"][str(question)]


if COREDNS is not None:

    def test_coredns_answers_as_is_written_down(api: LabServer) -> None:
        assert COREDNS is not None
        with theirs(api, COREDNS) as port:
            answers = {str(question): ask(port, question) for question in QUESTIONS}
        assert answers == RECORD["answers"], AGAIN

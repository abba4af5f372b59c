"""Whose requests the page's server refuses."""

import pytest

from ebpf_lb.lessons.web.guard import objection

OWN = {"Host": "127.0.0.1:8480"}
SECRET = OWN | {"Authorization": "Bearer secret"}
ORIGIN = SECRET | {"Origin": "http://127.0.0.1:8480", "Sec-Fetch-Site": "same-origin"}
BY_NAME = SECRET | {"Host": "localhost:8480", "Origin": "http://localhost:8480"}


def refused(headers: dict[str, str], path: str = "/api/scale") -> str:
    return objection(headers, path, 8480, "secret")


@pytest.mark.parametrize("headers", [SECRET, ORIGIN, BY_NAME])
def test_the_page_itself_is_let_in(headers: dict[str, str]) -> None:
    assert refused(headers) == ""


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"Host": "127.0.0.1"}, "is at"),
        ({"Host": "evil.example:8480"}, "is at"),  # a name that leads to loopback
        ({"Host": "127.0.0.1:8480.evil.example"}, "is at"),
        ({"Host": ""}, "is at"),
        ({"Origin": "http://evil.example"}, "another site"),
        ({"Origin": "http://127.0.0.1:8481"}, "another site"),  # another server of this machine
        ({"Origin": "https://127.0.0.1:8480"}, "another site"),
        ({"Origin": "null"}, "another site"),
        ({"Sec-Fetch-Site": "cross-site"}, "another site"),
        ({"Sec-Fetch-Site": "same-site"}, "another site"),
        ({"Authorization": ""}, "by the link"),
        ({"Authorization": "secret"}, "by the link"),
        ({"Authorization": "Bearer secre"}, "by the link"),
        ({"Authorization": "Bearer sécret"}, "by the link"),
    ],
)
def test_everybody_else_is_not(change: dict[str, str], says: str) -> None:
    assert says in refused(SECRET | change)


def test_the_pages_files_need_no_secret() -> None:
    """A browser asks for them before any script runs; the name it asks for counts all the same."""
    assert refused(OWN, "/static/page.js") == ""
    assert "is at" in refused({"Host": "evil.example"}, "/")

"""Watching against a server that forgets, hangs up, says nothing and comes back."""

import json
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from ebpf_lb.kube.client import ApiClient, connect
from ebpf_lb.kube.resources import (
    ENDPOINT_SLICES,
    ENDPOINT_SLICES_OR_ENDPOINTS,
    ENDPOINTS,
    SERVICE_CIDRS,
    SERVICES,
    Resource,
    node,
)
from ebpf_lb.kube.watch import Changed, Deleted, Event, Listed, Problem, Watcher, WatchSettings
from tests.api.server import TOKEN, ApiServer, running

QUICK = WatchSettings(
    page_size=3, server_timeout_s=60, silence_s=30, backoff_first_s=0.02, backoff_max_s=0.1
)


def service(address: str = "10.96.0.1") -> dict[str, Any]:
    return {"spec": {"clusterIP": address, "ports": [{"port": 80}]}}


class Follower:
    """What a consumer knows after the events so far."""

    def __init__(self) -> None:
        self.events: list[Event] = []
        self.known: dict[str, Any] = {}

    def __call__(self, event: Event) -> None:
        self.events.append(event)
        if isinstance(event, Listed):
            self.known = {value.key.name: value for value in event.objects}
        elif isinstance(event, Changed):
            self.known[event.key.name] = event.object
        elif isinstance(event, Deleted):
            self.known.pop(event.key.name, None)

    def wait(self, until: Callable[[], object], timeout_s: float = 5) -> None:
        """`until` may look at the server, too."""
        deadline = time.monotonic() + timeout_s
        while not until():
            assert time.monotonic() < deadline, (self.events, until)
            time.sleep(0.005)

    def names(self, *names: str) -> None:
        self.wait(lambda: self.known.keys() == set(names))

    def count(self, kind: type) -> int:
        return sum(isinstance(event, kind) for event in self.events)


class Recorder(Follower):
    """One that only listens."""

    def __call__(self, event: Event) -> None:
        self.events.append(event)

    def all(self, kind: type[Any]) -> list[Any]:
        return [event for event in self.events if isinstance(event, kind)]


def kubeconfig(folder: Path, server: str, ca: Path | None = None, token: str = TOKEN) -> Path:
    cluster = {"server": server} | ({"certificate-authority": str(ca)} if ca else {})
    path = folder / "kubeconfig"
    path.write_text(
        json.dumps(
            {
                "apiVersion": "v1",
                "kind": "Config",
                "current-context": "c",
                "clusters": [{"name": "c", "cluster": cluster}],
                "users": [{"name": "u", "user": {"token": token}}],
                "contexts": [{"name": "c", "context": {"cluster": "c", "user": "u"}}],
            }
        )
    )
    return path


@pytest.fixture
def server() -> Iterator[ApiServer]:
    with running() as a_server:
        yield a_server


@pytest.fixture
def client(server: ApiServer, tmp_path: Path) -> Iterator[ApiClient]:
    a_client = connect(kubeconfig(tmp_path, server.url))
    yield a_client
    a_client.close()


@pytest.fixture
def start(client: ApiClient) -> Iterator[Callable[..., Follower]]:
    watchers: list[Watcher] = []

    def begin(
        settings: WatchSettings = QUICK,
        resource: Resource = SERVICES,
        by: type[Follower] = Follower,
    ) -> Follower:
        follower = by()
        watchers.append(Watcher(client, resource, follower, settings=settings))
        watchers[-1].start()
        return follower

    yield begin
    for watcher in watchers:
        watcher.stop()
        assert not watcher.is_alive()


Start = Callable[..., Follower]


def test_list_then_every_change(server: ApiServer, start: Start) -> None:
    server.put("a", service())
    follower = start()
    follower.names("a")
    server.put("b", service())
    follower.names("a", "b")
    server.put("a", service("10.96.0.9"))
    follower.wait(lambda: follower.known["a"].cluster_ips == (b"\x0a\x60\x00\x09",))
    server.remove("a")
    follower.names("b")
    assert follower.count(Listed) == 1
    assert len(server.lists()) == 1 and len(server.watches()) == 1


def test_the_list_comes_in_pages_and_as_one_event(server: ApiServer, start: Start) -> None:
    names = [f"s{number}" for number in range(8)]
    for name in names:
        server.put(name, service())
    follower = start()
    follower.names(*names)
    assert [query["limit"] for query in server.lists()] == ["3", "3", "3"]
    assert [("continue" in query) for query in server.lists()] == [False, True, True]
    assert follower.count(Listed) == 1


def test_an_expired_continue_starts_the_list_afresh_in_one_piece(
    server: ApiServer, start: Start
) -> None:
    names = [f"s{number}" for number in range(5)]
    for name in names:
        server.put(name, service())
    original = server.answer

    def expire_after_first_page(request: Any) -> None:
        original(request)
        if len(server.requests) == 1:
            server.expire_continue()

    server.answer = expire_after_first_page  # type: ignore[method-assign]
    follower = start()
    follower.names(*names)
    assert ["limit" in query for query in server.lists()] == [True, True, False]
    assert follower.count(Listed) == 1
    server.forget()
    server.end_watches()
    follower.wait(lambda: len(server.lists()) >= 5)
    assert server.lists()[3]["limit"] == "3"  # pages again, the next time


@pytest.mark.parametrize("how", ["event", "status"])
def test_410_lists_again_and_what_vanished_is_gone(
    server: ApiServer, start: Start, how: str
) -> None:
    server.put("a", service())
    server.put("b", service())
    follower = start()
    follower.names("a", "b")
    follower.wait(lambda: len(server.watches()) == 1)
    server.remove("a", unseen=True)
    if how == "status":
        with server.lock:
            server.refusals.append(410)
    else:
        server.forget()
    server.end_watches()
    follower.names("b")
    assert follower.count(Listed) == 2
    assert follower.count(Problem) == 0  # nothing that people need to hear of


def test_an_ended_watch_goes_on_from_the_last_version(server: ApiServer, start: Start) -> None:
    server.put("a", service())
    follower = start()
    follower.names("a")
    server.put("b", service())
    follower.names("a", "b")
    server.end_watches()
    server.put("c", service())
    follower.names("a", "b", "c")
    assert [query["resourceVersion"] for query in server.watches()[:2]] == ["101", "102"]
    assert len(server.lists()) == 1


def test_a_bookmark_moves_the_version(server: ApiServer, start: Start) -> None:
    server.put("a", service())
    follower = start()
    follower.names("a")
    server.bookmark()
    server.put("b", service())
    follower.names("a", "b")
    server.remove("b")
    follower.names("a")
    server.bookmark()
    with server.lock:
        version = str(server.version)
    follower.wait(lambda: len(server.watches()) == 1)
    time.sleep(0.1)
    server.end_watches()
    follower.wait(lambda: len(server.watches()) >= 2)
    assert server.watches()[1]["resourceVersion"] == version
    assert server.watches()[0]["allowWatchBookmarks"] == "true"
    assert len(server.lists()) == 1


def test_a_silent_watch_is_given_up_and_made_up_for(server: ApiServer, start: Start) -> None:
    server.put("a", service())
    server.silent = True
    follower = start(WatchSettings(silence_s=0.2, backoff_first_s=0.02))
    follower.names("a")
    server.put("b", service())
    follower.wait(lambda: len(server.watches()) >= 2)
    assert follower.known.keys() == {"a"}
    server.silent = False
    follower.names("a", "b")
    assert len(server.lists()) == 1
    assert follower.count(Problem) == 0


def test_a_server_that_is_away_is_reported_once_and_made_up_for(
    server: ApiServer, start: Start
) -> None:
    server.put("a", service())
    follower = start()
    follower.names("a")
    server.stop()
    follower.wait(lambda: follower.count(Problem))
    time.sleep(0.4)  # several attempts
    server.put("b", service())
    server.start()
    follower.names("a", "b")
    problems = [event.text for event in follower.events if isinstance(event, Problem)]
    assert len(problems) == len(set(problems)) <= 2  # broken, then refused
    assert server.url in problems[-1]
    assert follower.count(Listed) == 1


def test_a_server_that_starts_later_is_waited_for(server: ApiServer, start: Start) -> None:
    server.stop()
    follower = start()
    follower.wait(lambda: follower.count(Problem))
    server.put("a", service())
    server.start()
    follower.names("a")


def test_a_server_that_lost_its_history_without_saying_so(server: ApiServer, start: Start) -> None:
    server.put("a", service())
    follower = start()
    follower.names("a")
    follower.wait(lambda: len(server.watches()) == 1)
    server.remove("a", unseen=True)
    with server.lock:
        server.refusals += [504] * 5
    server.end_watches()
    follower.names()
    assert follower.count(Listed) == 2


@pytest.mark.parametrize("status", [401, 403, 429, 500, 503])
def test_a_refused_list_is_reported_and_repeated(
    server: ApiServer, start: Start, status: int
) -> None:
    server.put("a", service())
    server.refusals.append(status)
    follower = start()
    follower.names("a")
    (problem,) = (event for event in follower.events if isinstance(event, Problem))
    assert f"status {status}: on request" in problem.text and "services" in problem.text


@pytest.mark.parametrize("junk", [{"type": "ADDED"}, {"type": "ADDED", "object": 3}, 7, []])
def test_nonsense_on_a_watch_breaks_it_and_no_more(
    server: ApiServer, start: Start, junk: Any
) -> None:
    follower = start()
    follower.wait(server.watches)
    server.send(junk)
    follower.wait(lambda: follower.count(Problem))
    with server.lock:
        server.history.clear()
    server.put("a", service())
    follower.names("a")


def test_a_bad_item_is_reported_and_the_rest_goes_on(server: ApiServer, start: Start) -> None:
    body = service()
    body["spec"]["externalIPs"] = ["10.0.0.300", "192.0.2.1"]
    server.put("a", body)
    follower = start()
    follower.names("a")
    assert follower.known["a"].external_ips == (b"\xc0\x00\x02\x01",)
    (problem,) = (event for event in follower.events if isinstance(event, Problem))
    assert problem.key is not None and str(problem.key) == "default/a"
    assert "spec.externalIPs[0] '10.0.0.300'" in problem.text


def test_an_object_that_is_no_longer_for_us_is_deleted(server: ApiServer, start: Start) -> None:
    labels = {"kubernetes.io/service-name": "web"}
    body = {"addressType": "IPv4", "endpoints": [{"addresses": ["10.0.0.1"]}], "ports": []}
    server.put("web-1", body, **labels)
    follower = start(resource=ENDPOINT_SLICES)
    follower.names("web-1")
    server.put("web-1", body)  # the label is gone
    follower.names()
    assert follower.count(Deleted) == 1


def test_selectors_are_sent_with_lists_and_watches(server: ApiServer, start: Start) -> None:
    follower = start(resource=node("node1"))
    follower.wait(lambda: server.watches())
    assert {query["fieldSelector"] for query in server.requests} == {"metadata.name=node1"}
    assert all("labelSelector" not in query for query in server.requests)
    follower = start(resource=SERVICES)
    follower.wait(lambda: len(server.watches()) == 2)
    expected = "!service.kubernetes.io/headless,!service.kubernetes.io/service-proxy-name"
    assert [query["labelSelector"] for query in server.requests if "labelSelector" in query] == [
        expected,
        expected,
    ]


def test_pauses_double_with_jitter_up_to_a_bound_and_start_anew_after_progress(
    server: ApiServer, client: ApiClient
) -> None:
    pauses: list[float] = []
    follower = Follower()
    settings = WatchSettings(backoff_first_s=1, backoff_max_s=5)

    def sleep(seconds: float) -> None:
        pauses.append(seconds)
        if len(pauses) == 6:
            server.put("a", service())  # progress on the watch that follows

    server.refusals += [503] * 5
    original = server.answer

    def refuse_first_watch(request: Any) -> None:
        if "watch" in request.path and not server.watches():
            with server.lock:
                server.refusals.append(503)
        original(request)

    server.answer = refuse_first_watch  # type: ignore[method-assign]
    watcher = Watcher(
        client, SERVICES, follower, settings=settings, sleep=sleep, chance=lambda: 1.0
    )
    watcher.start()
    follower.names("a")
    assert pauses == [1, 2, 4, 5, 5, 5]
    with server.lock:
        server.refusals.append(503)
    server.end_watches()
    follower.wait(lambda: len(server.watches()) >= 3)
    follower.wait(lambda: len(pauses) == 7)
    watcher.stop()
    assert pauses[6] == 1


@pytest.mark.parametrize("tls", [False, True])
def test_stop_wakes_a_silent_watch(
    tls: bool, server: ApiServer, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    if tls:
        server = request.getfixturevalue("tls_server")
        client = connect(kubeconfig(tmp_path, server.url, ca=tmp_path / "ca.pem"))
    else:
        client = connect(kubeconfig(tmp_path, server.url))
    follower = Follower()
    watcher = Watcher(client, SERVICES, follower)
    watcher.start()
    follower.wait(server.watches)
    time.sleep(0.1)  # it now waits for a byte
    began = time.monotonic()
    watcher.stop()
    assert time.monotonic() - began < 0.3
    assert not watcher.is_alive()
    before = len(follower.events)
    server.put("a", service())
    time.sleep(0.1)
    assert len(follower.events) == before == 1
    client.close()


@pytest.fixture
def tls_server(tmp_path: Path) -> Iterator[ApiServer]:
    certificate, key = self_signed(tmp_path)
    with running((certificate, key)) as a_server:
        yield a_server


def self_signed(folder: Path) -> tuple[Path, Path]:
    """A certificate for 127.0.0.1 that is its own authority, and its key."""
    import datetime
    import ipaddress

    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.x509.oid import NameOID

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "test")])
    now = datetime.datetime.now(datetime.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - datetime.timedelta(hours=1))
        .not_valid_after(now + datetime.timedelta(hours=1))
        .add_extension(
            x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), False
        )
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), True)
        .sign(key, hashes.SHA256())
    )
    (folder / "ca.pem").write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    (folder / "key.pem").write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )
    return folder / "ca.pem", folder / "key.pem"


def test_tls_with_the_right_authority_only(
    tls_server: ApiServer, tmp_path: Path, server: ApiServer
) -> None:
    tls_server.put("a", service())
    client = connect(kubeconfig(tmp_path, tls_server.url, ca=tmp_path / "ca.pem"))
    follower = Follower()
    watcher = Watcher(client, SERVICES, follower, settings=QUICK)
    watcher.start()
    follower.names("a")
    tls_server.put("b", service())
    follower.names("a", "b")
    watcher.stop()

    stranger = connect(kubeconfig(tmp_path, tls_server.url))
    follower = Follower()
    watcher = Watcher(stranger, SERVICES, follower, settings=QUICK)
    watcher.start()
    follower.wait(lambda: follower.count(Problem))
    watcher.stop()
    assert follower.count(Listed) == 0
    assert "certificate" in str(follower.events[0]).lower()


def test_a_wrong_token_is_reported(server: ApiServer, tmp_path: Path) -> None:
    client = connect(kubeconfig(tmp_path, server.url, token="wrong"))
    follower = Follower()
    watcher = Watcher(client, SERVICES, follower, settings=QUICK)
    watcher.start()
    follower.wait(lambda: follower.count(Problem))
    watcher.stop()
    assert "status 401" in str(follower.events[0])


def endpoints(address: str) -> dict[str, Any]:
    return {"subsets": [{"addresses": [{"ip": address}], "ports": [{"port": 80}]}]}


def test_a_server_without_slices_is_asked_for_endpoints(server: ApiServer, start: Start) -> None:
    server.absent = "/apis/discovery.k8s.io/"
    server.put("web", endpoints("10.0.0.1"))
    recorder = start(resource=ENDPOINT_SLICES_OR_ENDPOINTS, by=Recorder)
    recorder.wait(lambda: recorder.all(Listed))
    (listed,) = recorder.all(Listed)
    assert listed.resource == ENDPOINTS
    assert [[s.service.name for s in slices] for slices in listed.objects] == [["web"]]
    server.put("web", endpoints("10.0.0.2"))
    recorder.wait(lambda: recorder.all(Changed))
    (changed,) = recorder.all(Changed)
    assert (changed.resource, changed.key.name) == (ENDPOINTS, "web")
    assert [s.addresses for s in changed.object] == [b"\x0a\0\0\x02"]
    assert not recorder.all(Problem)


def test_a_server_that_has_slices_is_not_asked_for_endpoints(
    server: ApiServer, start: Start
) -> None:
    follower = start(resource=ENDPOINT_SLICES_OR_ENDPOINTS)
    follower.wait(lambda: follower.count(Listed))
    assert [e.resource.name for e in follower.events if isinstance(e, Listed)] == ["endpointslices"]


@pytest.mark.parametrize("refusal", [503, 403])
def test_only_a_server_that_has_no_slices_is_asked_for_endpoints(
    server: ApiServer, start: Start, refusal: int
) -> None:
    server.refusals = [refusal] * 3
    follower = start(resource=ENDPOINT_SLICES_OR_ENDPOINTS)
    follower.wait(lambda: follower.count(Listed))
    assert [e.resource.name for e in follower.events if isinstance(e, Listed)] == ["endpointslices"]
    assert follower.count(Problem) == 1


def service_cidr(*networks: str) -> dict[str, Any]:
    return {"spec": {"cidrs": list(networks)}}


@pytest.mark.parametrize("missing", [404, 403])
def test_what_is_optional_is_empty_where_it_is_missing_until_it_is_there(
    server: ApiServer, start: Start, missing: int
) -> None:
    server.put("kubernetes", service_cidr("10.96.0.0/12"))
    server.refusals = [missing] * 2
    follower = start(replace(QUICK, absent_s=0.02), SERVICE_CIDRS)
    follower.names("kubernetes")
    lists = [event.objects for event in follower.events if isinstance(event, Listed)]
    assert [len(objects) for objects in lists] == [0, 0, 1]
    assert follower.count(Problem) == (missing == 403)
    server.put("more", service_cidr("10.112.0.0/16"))
    follower.names("kubernetes", "more")


def test_what_is_optional_is_not_empty_because_the_server_is_away(
    server: ApiServer, start: Start
) -> None:
    server.put("kubernetes", service_cidr("10.96.0.0/12"))
    server.refusals = [500, 503]
    follower = start(resource=SERVICE_CIDRS)
    follower.names("kubernetes")
    assert follower.count(Listed) == 1

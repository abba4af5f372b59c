"""An API server that misbehaves on request, a client, and watchers that are ended."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from ebpf_lb.kube.client import ApiClient, connect
from ebpf_lb.kube.resources import SERVICES, Resource
from ebpf_lb.kube.watch import Watcher, WatchSettings
from tests.api.connection import kubeconfig, self_signed
from tests.api.follower import QUICK, Follower
from tests.api.server import ApiServer, running


@pytest.fixture
def server() -> Iterator[ApiServer]:
    with running() as a_server:
        yield a_server


@pytest.fixture
def tls_server(tmp_path: Path) -> Iterator[ApiServer]:
    certificate, key = self_signed(tmp_path)
    with running((certificate, key)) as a_server:
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
        watcher.stop(timeout_s=60)
        assert not watcher.is_alive()

"""The lab's API server as a client meets it: TLS, tokens, lists, watches, restarts."""

import queue
import stat
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from statistics import median
from typing import Any

import pytest
from kubernetes import client, watch
from kubernetes.client.rest import ApiException

from ebpf_lb.kube.client import connect
from ebpf_lb.kube.resources import SERVICES
from ebpf_lb.kube.watch import Watcher, WatchSettings
from ebpf_lb.lab.objects.client import STRATEGIC, ApiError
from tests.api.follower import Follower
from tests.api.lab_server import LabServer

Json = dict[str, Any]
CONFIG_MAPS = "/api/v1/namespaces/default/configmaps"
SERVICES_PATH = "/api/v1/namespaces/default/services"


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LabServer]:
    """For tests that name their objects after themselves and leave the server as it was."""
    server = LabServer(tmp_path_factory.mktemp("api"), "--bookmark-interval", "0.2")
    yield server
    server.close()


@pytest.fixture
def server(tmp_path: Path) -> Iterator[LabServer]:
    made = LabServer(tmp_path, "--watch-history", "20")
    yield made
    made.close()


@pytest.fixture(scope="module")
def core(shared: LabServer) -> client.CoreV1Api:
    return client.CoreV1Api(shared.api_client())


def config_map(name: str, **labels: str) -> Json:
    return {"metadata": {"name": name, "labels": labels}, "data": {"a": "1"}}


def web(name: str) -> Json:
    return {"metadata": {"name": name}, "spec": {"ports": [{"port": 80}]}}


def refusal(operation: Any, *arguments: Any, **keywords: Any) -> ApiException:
    with pytest.raises(ApiException) as caught:
        operation(*arguments, **keywords)
    return caught.value


# --- getting in


def test_secrets_are_nobody_elses(shared: LabServer) -> None:
    for path in (shared.folder / "api/token", shared.folder / "api/server.key", shared.socket):
        assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_a_token_is_needed(shared: LabServer) -> None:
    api = shared.api_client()
    api.configuration.api_key.clear()
    assert refusal(client.CoreV1Api(api).list_namespace).status == 401


def test_the_certificate_is_checked(shared: LabServer) -> None:
    api = shared.api_client()
    configuration = client.Configuration()
    configuration.host = api.configuration.host
    configuration.retries = 0
    with pytest.raises(Exception, match="CERTIFICATE_VERIFY_FAILED"):
        client.CoreV1Api(client.ApiClient(configuration)).list_namespace()


def test_a_new_cluster(core: client.CoreV1Api, shared: LabServer) -> None:
    names = {namespace.metadata.name for namespace in core.list_namespace().items}
    assert {"default", "kube-system", "kube-public", "kube-node-lease"} <= names
    kubernetes = core.read_namespaced_service("kubernetes", "default")
    assert kubernetes.spec.cluster_ip == "10.96.0.1"
    cidr = client.NetworkingV1Api(shared.api_client()).read_service_cidr("kubernetes")
    assert cidr.spec.cidrs == ["10.96.0.0/16", "fd00:10:96::/112"]


def test_discovery(shared: LabServer) -> None:
    api = shared.api_client()
    groups = {group.name for group in client.ApisApi(api).get_api_versions().groups}
    assert {"apps", "discovery.k8s.io", "networking.k8s.io"} <= groups
    resources = client.CoreV1Api(api).get_api_resources().resources
    services = next(resource for resource in resources if resource.name == "services")
    assert services.namespaced and services.short_names == ["svc"]
    assert client.VersionApi(api).get_code().major == "1"


# --- objects, by the library's generated calls


def test_life_of_an_object(core: client.CoreV1Api) -> None:
    created = core.create_namespaced_service("default", web("life"))
    assert created.spec.ports[0].target_port == 80
    created.spec.session_affinity = "ClientIP"
    replaced = core.replace_namespaced_service("life", "default", created)
    assert replaced.metadata.resource_version != created.metadata.resource_version
    error = refusal(core.replace_namespaced_service, "life", "default", created)
    assert error.status == 409
    patch = {"metadata": {"labels": {"x": "y"}}}
    patched = core.patch_namespaced_service("life", "default", patch)
    assert patched.metadata.labels == {"x": "y"}
    patch = {"metadata": {"labels": {"x": None}}}
    assert not core.patch_namespaced_service("life", "default", patch).metadata.labels
    core.delete_namespaced_service("life", "default")
    assert refusal(core.read_namespaced_service, "life", "default").status == 404


def test_refusals_are_status_objects(shared: LabServer) -> None:
    with pytest.raises(ApiError) as caught:
        shared.local.create(SERVICES_PATH, {"metadata": {"name": "bad"}, "spec": {}})
    assert (caught.value.status, caught.value.reason) == (422, "Invalid")
    assert caught.value.causes[0]["field"] == "spec.ports"
    with pytest.raises(ApiError) as caught:
        shared.local.patch(f"{SERVICES_PATH}/kubernetes", {}, "application/apply-patch+yaml")
    assert caught.value.status == 415
    for path in ("/api/v1/nothing", "/apis/none/v1/services", "/api/v1/services/name", "/x"):
        with pytest.raises(ApiError) as caught:
            shared.local.get(path)
        assert caught.value.status == 404
    with pytest.raises(ApiError) as caught:
        shared.local.update(SERVICES_PATH, {})
    assert caught.value.status == 405


def test_dry_run_stores_nothing(shared: LabServer) -> None:
    tried = shared.local.create(SERVICES_PATH, web("tried"), dryRun="All")
    assert tried["spec"]["clusterIP"]
    with pytest.raises(ApiError):
        shared.local.get(f"{SERVICES_PATH}/tried")


def test_strategic_patch_and_scale(shared: LabServer) -> None:
    apps = client.AppsV1Api(shared.api_client())
    container = {"name": "c", "image": "1", "args": ["x"]}
    apps.create_namespaced_deployment(
        "default",
        {
            "metadata": {"name": "patched"},
            "spec": {
                "replicas": 0,
                "selector": {"matchLabels": {"app": "patched"}},
                "template": {
                    "metadata": {"labels": {"app": "patched"}},
                    "spec": {"containers": [container]},
                },
            },
        },
    )
    change = {"spec": {"template": {"spec": {"containers": [{"name": "c", "image": "2"}]}}}}
    path = "/apis/apps/v1/namespaces/default/deployments/patched"
    patched = shared.local.patch(path, change, STRATEGIC)
    assert patched["spec"]["template"]["spec"]["containers"][0]["args"] == ["x"]
    scale = apps.patch_namespaced_deployment_scale("patched", "default", {"spec": {"replicas": 2}})
    assert scale.spec.replicas == 2
    pods = client.CoreV1Api(shared.api_client())
    deadline = time.monotonic() + 60
    while len(pods.list_namespaced_pod("default", label_selector="app=patched").items) < 2:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    apps.delete_namespaced_deployment("patched", "default")


# --- lists


def test_lists_come_in_pieces(core: client.CoreV1Api) -> None:
    for number in range(7):
        core.create_namespaced_config_map("default", config_map(f"chunk-{number}", set="chunk"))
    names, token = [], None
    version = None
    while True:
        page = core.list_namespaced_config_map(
            "default", label_selector="set=chunk", limit=3, _continue=token
        )
        assert len(page.items) <= 3
        version = version or page.metadata.resource_version
        assert page.metadata.resource_version == version, "all pieces are of one moment"
        names += [item.metadata.name for item in page.items]
        token = page.metadata._continue
        if not token:
            break
        if len(names) == 3:  # neither is seen by a list that has begun before
            core.delete_namespaced_config_map("chunk-5", "default")
            core.create_namespaced_config_map("default", config_map("chunk-9", set="chunk"))
    assert names == [f"chunk-{number}" for number in range(7)]


def test_items_of_a_list_have_no_kind(shared: LabServer) -> None:
    listed = shared.local.get("/api/v1/namespaces")
    assert listed["kind"] == "NamespaceList"
    assert not listed["items"][0].keys() & {"kind", "apiVersion"}
    one = shared.local.get("/api/v1/namespaces/default")
    assert (one["kind"], one["apiVersion"]) == ("Namespace", "v1")


def test_a_list_of_the_future(shared: LabServer) -> None:
    with pytest.raises(ApiError) as caught:
        shared.local.get(CONFIG_MAPS, resourceVersion=10**9)
    assert (caught.value.status, caught.value.causes[0]["reason"]) == (
        504,
        "ResourceVersionTooLarge",
    )


def test_a_continue_token_grows_old(server: LabServer) -> None:
    for number in range(4):
        server.local.create(CONFIG_MAPS, config_map(f"c{number}"))
    token = server.local.get(CONFIG_MAPS, limit=2)["metadata"]["continue"]
    for number in range(30):
        change = {"data": {"a": str(number)}}
        server.local.patch(f"{CONFIG_MAPS}/c0", change)
    with pytest.raises(ApiError) as caught:
        server.local.get(CONFIG_MAPS, **{"limit": 2, "continue": token})
    assert (caught.value.status, caught.value.reason) == (410, "Expired")


# --- watches


def events(server: LabServer, path: str, version: str, **params: str) -> list[tuple[str, str]]:
    """What a watch of one second tells, without bookmarks."""
    return [
        (event["type"], event["object"]["metadata"]["name"])
        for event in server.local.watch(path, version, 1, **params)
        if event["type"] != "BOOKMARK"
    ]


def test_watch_by_the_library(core: client.CoreV1Api) -> None:
    version = core.list_namespaced_config_map("default").metadata.resource_version
    core.create_namespaced_config_map("default", config_map("watched"))
    core.patch_namespaced_config_map("watched", "default", {"data": {"a": "2"}})
    core.delete_namespaced_config_map("watched", "default")
    seen = [
        (event["type"], event["object"].metadata.name)
        for event in watch.Watch().stream(
            core.list_namespaced_config_map,
            "default",
            resource_version=version,
            timeout_seconds=1,
        )
    ]
    assert seen == [("ADDED", "watched"), ("MODIFIED", "watched"), ("DELETED", "watched")]


def test_entering_and_leaving_a_selection(shared: LabServer) -> None:
    path = f"{CONFIG_MAPS}/moving"
    version = shared.local.create(CONFIG_MAPS, config_map("moving"))["metadata"]["resourceVersion"]
    shared.local.patch(path, {"metadata": {"labels": {"colour": "blue"}}})
    shared.local.patch(path, {"data": {"a": "3"}})
    shared.local.patch(path, {"metadata": {"labels": {"colour": "red"}}})
    shared.local.patch(path, {"data": {"a": "4"}})
    shared.local.delete(path)
    seen = events(shared, CONFIG_MAPS, version, labelSelector="colour=blue")
    assert seen == [("ADDED", "moving"), ("MODIFIED", "moving"), ("DELETED", "moving")]
    seen = events(shared, CONFIG_MAPS, version, fieldSelector="metadata.name=other")
    assert seen == []


def test_watch_from_the_beginning(shared: LabServer) -> None:
    shared.local.create(CONFIG_MAPS, config_map("present", set="present"))
    for version in ("", "0"):
        seen = events(shared, CONFIG_MAPS, version, labelSelector="set=present")
        assert seen == [("ADDED", "present")]


def test_bookmarks(shared: LabServer) -> None:
    path = "/apis/apps/v1/statefulsets"
    version = shared.local.get(path)["metadata"]["resourceVersion"]
    other = shared.local.create(CONFIG_MAPS, config_map("elsewhere"))
    seen = list(shared.local.watch(path, version, 1))
    assert {event["type"] for event in seen} == {"BOOKMARK"}
    assert len(seen) >= 3
    assert int(seen[-1]["object"]["metadata"]["resourceVersion"]) >= int(
        other["metadata"]["resourceVersion"]
    )


def test_initial_events_end_with_a_bookmark(shared: LabServer) -> None:
    params = {"sendInitialEvents": "true", "resourceVersionMatch": "NotOlderThan"}
    seen = list(shared.local.watch("/api/v1/namespaces", "", 1, **params))
    kinds = [event["type"] for event in seen]
    first_bookmark = kinds.index("BOOKMARK")
    assert set(kinds[:first_bookmark]) == {"ADDED"}
    annotations = seen[first_bookmark]["object"]["metadata"]["annotations"]
    assert annotations == {"k8s.io/initial-events-end": "true"}


def test_a_version_that_is_forgotten(server: LabServer) -> None:
    first = server.local.create(CONFIG_MAPS, config_map("a"))
    for number in range(30):
        server.local.patch(f"{CONFIG_MAPS}/a", {"data": {"a": str(number + 2)}})
    version = first["metadata"]["resourceVersion"]
    (event,) = server.local.watch(CONFIG_MAPS, version, 5)
    assert event["type"] == "ERROR"
    assert (event["object"]["code"], event["object"]["reason"]) == (410, "Expired")


def test_an_event_comes_at_once(shared: LabServer) -> None:
    version = shared.local.get(CONFIG_MAPS)["metadata"]["resourceVersion"]
    seen: queue.Queue[tuple[str, float]] = queue.Queue()
    names = [f"soon{number}" for number in range(21)]

    def follow() -> None:
        for event in shared.local.watch(CONFIG_MAPS, version, 300):
            if event["type"] == "ADDED" and event["object"]["metadata"]["name"] in names:
                seen.put((event["object"]["metadata"]["name"], time.monotonic()))
                if event["object"]["metadata"]["name"] == names[-1]:
                    return

    follower = threading.Thread(target=follow)
    follower.start()
    delays = []
    for name in names:
        began = time.monotonic()
        shared.local.create(CONFIG_MAPS, config_map(name))
        told, when = seen.get(timeout=60)
        assert told == name
        delays.append(when - began)
    follower.join(60)
    assert median(delays) < 0.5, "on whatever machine it is some milliseconds"


# --- beginnings and ends


def test_sigterm_ends_it_though_it_is_watched(server: LabServer) -> None:
    seen: list[str] = []

    def follow() -> None:
        seen.extend(event["type"] for event in server.local.watch(CONFIG_MAPS, "0", 600))

    follower = threading.Thread(target=follow)
    follower.start()
    time.sleep(0.3)
    began = time.monotonic()
    server.stop()
    assert time.monotonic() - began < 30  # of the 600 that the watch would last
    follower.join(60)
    assert not follower.is_alive()
    assert not server.socket.exists()


@pytest.mark.parametrize("end", ["stop", "kill"])
def test_a_restart_loses_nothing(server: LabServer, end: str) -> None:
    created = server.local.create(SERVICES_PATH, web("kept"))
    token = (server.folder / "api/token").read_text()
    getattr(server, end)()
    server.restart()
    assert server.local.get(f"{SERVICES_PATH}/kept") == created
    assert (server.folder / "api/token").read_text() == token
    taken = web("other") | {
        "spec": {"ports": [{"port": 1}], "clusterIP": created["spec"]["clusterIP"]}
    }
    with pytest.raises(ApiError, match="already allocated"):
        server.local.create(SERVICES_PATH, taken)
    later = server.local.create(CONFIG_MAPS, config_map("later"))
    assert int(later["metadata"]["resourceVersion"]) > int(created["metadata"]["resourceVersion"])


def test_the_agents_client_follows_it_over_restarts(server: LabServer) -> None:
    settings = WatchSettings(page_size=2, backoff_first_s=0.02, backoff_max_s=0.1)
    follower = Follower()
    watcher = Watcher(connect(server.kubeconfig), SERVICES, follower, settings=settings)
    try:
        watcher.start()
        follower.names("kubernetes")
        for number in range(5):
            server.local.create(SERVICES_PATH, web(f"s{number}"))
        follower.names("kubernetes", *(f"s{number}" for number in range(5)))
        server.kill()
        server.restart()
        server.local.delete(f"{SERVICES_PATH}/s3")
        server.local.create(SERVICES_PATH, web("new"))
        follower.names("kubernetes", "s0", "s1", "s2", "s4", "new")
    finally:
        watcher.stop(timeout_s=60)

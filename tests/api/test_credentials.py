"""Credentials that change while we run, and certificates that never stand in a file."""

import json
import ssl
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from ebpf_lb.kube import credentials
from ebpf_lb.kube.client import ApiClient, ApiError, connect
from ebpf_lb.kube.resources import SERVICES
from ebpf_lb.kube.watch import Listed, Problem, Watcher
from tests.api.connection import kubeconfig, self_signed
from tests.api.follower import QUICK, Follower
from tests.api.server import TOKEN, ApiServer, running, service

PATH = SERVICES.path


def test_a_new_token_is_taken_when_the_old_one_is_refused(tmp_path: Path) -> None:
    with running() as server:
        client = connect(kubeconfig(tmp_path, server.url, token="expired"))
        with pytest.raises(ApiError, match="status 401"):
            client.get(PATH, {})
        kubeconfig(tmp_path, server.url)
        assert client.get(PATH, {})["items"] == []


def test_an_exec_plugin_is_asked_again(tmp_path: Path) -> None:
    """Its first token is worth nothing, the second one is."""
    plugin = tmp_path / "plugin"
    credential = {
        "apiVersion": "client.authentication.k8s.io/v1",
        "kind": "ExecCredential",
        "status": {"token": "TOKEN"},
    }
    plugin.write_text(
        f"#!/bin/sh\nif test -e {tmp_path}/once; then token={TOKEN}; else token=stale; fi\n"
        f"touch {tmp_path}/once\n"
        f"echo '{json.dumps(credential)}' | sed s/TOKEN/$token/\n"
    )
    plugin.chmod(plugin.stat().st_mode | stat.S_IXUSR)
    with running() as server:
        path = kubeconfig(tmp_path, server.url)
        content = json.loads(path.read_text())
        how = {"apiVersion": credential["apiVersion"], "command": str(plugin)}
        content["users"][0]["user"] = {"exec": how | {"interactiveMode": "Never"}}
        path.write_text(json.dumps(content))
        assert connect(path).get(PATH, {})["items"] == []


def test_what_cannot_be_read_again_is_said(tmp_path: Path) -> None:
    with running() as server:
        path = kubeconfig(tmp_path, server.url, token="expired")
        client = connect(path)
        path.unlink()
        with pytest.raises(ApiError, match=f"{path} does not exist"):
            client.get(PATH, {})


def test_a_client_certificate_goes_from_memory_to_the_server(tmp_path: Path) -> None:
    certificate, key = self_signed(tmp_path)
    server = ApiServer((certificate, key))
    try:
        assert server.tls is not None
        server.tls.verify_mode = ssl.CERT_REQUIRED
        server.tls.load_verify_locations(certificate)
        path = kubeconfig(tmp_path, server.url, ca=certificate)
        with pytest.raises(ApiError):
            connect(path).get(PATH, {})
        content = json.loads(path.read_text())
        content["users"][0]["user"] |= {
            "client-certificate": str(certificate),
            "client-key": str(key),
        }
        path.write_text(json.dumps(content))
        assert connect(path).get(PATH, {})["items"] == []
    finally:
        server.stop()


def test_the_agent_never_imports_the_library_itself() -> None:
    """It and what it brings along cost an agent on every node 12 MB."""
    heavy = ["kubernetes", "requests", "oauthlib", "pydantic", "bcc"]
    code = f"import sys, ebpf_lb.agent.run; print([m for m in {heavy} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


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


def test_where_the_server_is_is_told_before_it_is_asked(server: ApiServer, tmp_path: Path) -> None:
    """What stands in the way there must go first."""
    address = (bytes([127, 0, 0, 1]), int(server.url.rpartition(":")[2]))
    client = connect(kubeconfig(tmp_path, server.url))
    assert client.look_up() == client.ends == frozenset({address})

    told = []
    again = connect(kubeconfig(tmp_path, server.url))
    again.moved = lambda ends: told.append((ends, len(server.requests)))
    again.get(PATH, {})
    again.get(PATH, {})
    assert told == [(frozenset({address}), 0)]


def test_a_new_token_is_used_before_the_old_one_is_refused(
    server: ApiServer, tmp_path: Path
) -> None:
    """Bound tokens rotate: the kubelet writes a new one long before the old one ends."""
    path = kubeconfig(tmp_path, server.url)
    content = json.loads(path.read_text())
    content["users"][0]["user"] = {"tokenFile": "token"}  # beside the kubeconfig
    path.write_text(json.dumps(content))
    (tmp_path / "token").symlink_to("data-1")
    (tmp_path / "data-1").write_text(TOKEN)
    (tmp_path / "data-2").write_text("the-next-one")
    client = connect(path)
    client.get(PATH, {})
    following = tmp_path / "next"
    following.symlink_to("data-2")  # as the kubelet does it
    following.rename(tmp_path / "token")
    seen: list[str] = []
    answer = server.answer
    server.answer = lambda request: (  # type: ignore[method-assign]
        seen.append(request.headers["Authorization"]),
        answer(request),
    )[1]
    with pytest.raises(ApiError, match="status 401"):
        client.get(PATH, {})
    assert seen[0] == "Bearer the-next-one"


def test_a_new_authority_is_used_when_its_file_changes(tmp_path: Path) -> None:
    """No 401 tells of that: the connection itself fails, for ever."""
    wrong = tmp_path / "wrong"
    wrong.mkdir()
    self_signed(wrong)
    tls = self_signed(tmp_path)
    with running(tls) as server:
        authority = tmp_path / "authority.pem"
        authority.write_bytes((wrong / "ca.pem").read_bytes())
        client = connect(kubeconfig(tmp_path, server.url, ca=authority))
        for _ in range(2):
            with pytest.raises(ApiError, match="its certificate is not accepted: ") as caught:
                client.get(PATH, {})
            assert "0x" not in str(caught.value) and caught.value.status == 0
        authority.write_bytes((tmp_path / "ca.pem").read_bytes())
        assert client.get(PATH, {})["items"] == []


def test_what_is_half_written_leaves_us_with_what_we_have(
    server: ApiServer, tmp_path: Path
) -> None:
    path = kubeconfig(tmp_path, server.url)
    good = path.read_text()
    client = connect(path)
    path.write_text(good[: len(good) // 2])
    assert client.get(PATH, {})["items"] == []
    path.write_text(good.replace(TOKEN, "another"))
    with pytest.raises(ApiError, match="status 401"):
        client.get(PATH, {})
    path.write_text(good)
    assert client.get(PATH, {})["items"] == []


def test_a_server_that_refuses_us_for_long_does_not_cost_a_processor(
    server: ApiServer, tmp_path: Path
) -> None:
    """Each look at the credentials may be a process of its own."""
    path = kubeconfig(tmp_path, server.url, token="expired")
    reads = []

    def read() -> credentials.Credentials:
        reads.append(1)
        return credentials.read(path)

    client = ApiClient(read)
    for _ in range(5):
        with pytest.raises(ApiError, match="status 401"):
            client.get(PATH, {})
    assert len(reads) == 2  # at first, and once to see whether it is another by now

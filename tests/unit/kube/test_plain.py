"""Plain credentials are read as the kubernetes library reads them; all else is left to it."""

import base64
import json
import subprocess
from pathlib import Path
from typing import Any

import pytest
from kubernetes.config import incluster_config

from ebpf_lb.kube import credentials, library, plain

SERVER = "https://192.0.2.1:6443"


def kubeconfig(folder: Path, cluster: dict[str, Any], user: dict[str, Any]) -> Path:
    path = folder / "kubeconfig"
    path.write_text(
        json.dumps(
            {
                "current-context": "c",
                "clusters": [{"name": "k", "cluster": {"server": SERVER} | cluster}],
                "users": [{"name": "u", "user": user}, {"name": "other", "user": {"exec": {}}}],
                "contexts": [{"name": "c", "context": {"cluster": "k", "user": "u"}}],
            }
        )
    )
    return path


def self_signed(folder: Path) -> dict[str, str]:
    from tests.api.connection import self_signed as make

    return {name: file.read_text() for name, file in zip(("ca", "key"), make(folder), strict=True)}


PLAIN = [
    ({}, {"token": "secret"}),
    ({"server": f"{SERVER}/"}, {"tokenFile": "token"}),
    ({"server": "http://192.0.2.1:8080"}, {}),
    ({"insecure-skip-tls-verify": True}, {"token": "secret"}),
    ({"tls-server-name": "kubernetes"}, {"token": "secret", "tokenFile": "nowhere"}),
    ({"certificate-authority": "ca.pem"}, {"token": "secret"}),
    (
        {"certificate-authority-data": "CA"},
        {"client-certificate": "ca.pem", "client-key": "key.pem"},
    ),
    ({}, {"client-certificate-data": "CA", "client-key-data": "KEY"}),
]


@pytest.mark.parametrize(("cluster", "user"), PLAIN)
def test_plain_kubeconfigs_say_what_the_library_reads(
    tmp_path: Path, cluster: dict[str, Any], user: dict[str, Any]
) -> None:
    pem = self_signed(tmp_path)
    (tmp_path / "token").write_text("from-a-file")
    data = {"CA": pem["ca"], "KEY": pem["key"]}
    for entry in (cluster, user):
        entry |= {
            key: base64.b64encode(data[value].encode()).decode()
            for key, value in entry.items()
            if key.endswith("-data") and value in data
        }
    path = kubeconfig(tmp_path, cluster, user)
    found = plain.read(path)
    assert found is not None
    expected = library.describe(library.load(path, None))
    assert credentials.Credentials(**found) == credentials.Credentials(**expected)


@pytest.mark.parametrize(
    ("cluster", "user"),
    [
        ({}, {"exec": {"command": "plugin"}}),
        ({}, {"auth-provider": {"name": "oidc"}}),
        ({}, {"username": "u", "password": "p"}),
        ({"proxy-url": "http://192.0.2.9"}, {"token": "secret"}),
        ({"certificate-authority": "nowhere"}, {"token": "secret"}),
        ({"certificate-authority-data": "abc"}, {"token": "secret"}),
        ({}, {"token": " "}),
        ({"server": ""}, {"token": "secret"}),
    ],
)
def test_what_is_not_plain_or_wrong_is_the_librarys(
    tmp_path: Path, cluster: dict[str, Any], user: dict[str, Any]
) -> None:
    assert plain.read(kubeconfig(tmp_path, cluster, user)) is None


def test_a_proxy_of_the_environment_is_the_librarys(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = kubeconfig(tmp_path, {}, {"token": "secret"})
    assert plain.read(path)
    monkeypatch.setenv("https_proxy", "http://192.0.2.9")
    assert plain.read(path) is None


def test_a_pod_starts_no_process_to_read_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert plain.files(None) == [
        incluster_config.SERVICE_TOKEN_FILENAME,
        incluster_config.SERVICE_CERT_FILENAME,
    ]
    authority = self_signed(tmp_path)["ca"]
    (tmp_path / "token").write_text("of-a-pod\n")
    (tmp_path / "ca.crt").write_text(authority)
    monkeypatch.setattr(plain, "SERVICE_ACCOUNT", tmp_path)
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "fd00::1")
    monkeypatch.setenv("KUBERNETES_SERVICE_PORT", "443")
    monkeypatch.setattr(subprocess, "run", lambda *_, **__: pytest.fail("a process"))
    found = credentials.read(None)
    assert found.server == "https://[fd00::1]:443" and found.authority == authority
    assert found.headers == {"authorization": "Bearer of-a-pod"}
    before = found.stamps()
    assert before == found.read_at
    (tmp_path / "token").write_text("the-next-one\n")
    assert found.stamps() != before
    (tmp_path / "ca.crt").write_text("")
    assert plain.read(None) is None

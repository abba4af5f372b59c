"""Credentials that stand in files, read without the kubernetes library: those that a pod is given,
and kubeconfigs with tokens or certificates.

The library knows plugins, identity providers and proxies besides, but takes a process and a third
of a second of a processor, which is a third of an agent's start. What is not plain is left to it,
and so is whatever is wrong: it has the sentence for that.
"""

import base64
import os
from pathlib import Path
from typing import Any

import yaml

SERVICE_ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")
_FILES = ("certificate-authority", "client-certificate", "client-key", "tokenFile")
_CLUSTER = frozenset(
    {
        "server",
        "certificate-authority",
        "certificate-authority-data",
        "insecure-skip-tls-verify",
        "tls-server-name",
        "extensions",
    }
)
_USER = frozenset(
    {
        "client-certificate",
        "client-certificate-data",
        "client-key",
        "client-key-data",
        "token",
        "tokenFile",
    }
)


def files(kubeconfig: Path | None) -> list[str]:
    """What the credentials are read from, as far as it can be told before."""
    if kubeconfig is None:
        return [str(SERVICE_ACCOUNT / "token"), str(SERVICE_ACCOUNT / "ca.crt")]
    found = [str(kubeconfig)]
    try:
        content = yaml.safe_load(kubeconfig.read_bytes())
        for kind in ("clusters", "users"):
            for entry in content.get(kind) or ():
                named = entry.get(kind[:-1]) or {}
                found += [str(kubeconfig.parent / named[key]) for key in _FILES if named.get(key)]
    except (OSError, yaml.YAMLError, AttributeError, TypeError):
        pass  # whoever loads it says what is wrong
    return found


def read(kubeconfig: Path | None) -> dict[str, Any] | None:
    """Fields of `credentials.Credentials`; None: they are not plain, or not right."""
    if any(name.lower().endswith("_proxy") for name in os.environ):
        return None
    try:
        return _of_pod() if kubeconfig is None else _of_file(kubeconfig)
    except (OSError, yaml.YAMLError, LookupError, TypeError, ValueError, AttributeError):
        return None


def _of_pod() -> dict[str, Any]:
    host, port = (os.environ[f"KUBERNETES_SERVICE_{part}"] for part in ("HOST", "PORT"))
    return {
        "server": f"https://{f'[{host}]' if ':' in host else host}:{int(port)}",
        "headers": _bearer((SERVICE_ACCOUNT / "token").read_text()),
        "authority": _some((SERVICE_ACCOUNT / "ca.crt").read_text()),
    }


def _of_file(path: Path) -> dict[str, Any] | None:
    content = yaml.safe_load(path.read_bytes())
    context = _named(content, "context", content["current-context"])
    cluster = _named(content, "cluster", context["cluster"])
    user = _named(content, "user", context["user"])
    if not (cluster.keys() <= _CLUSTER and user.keys() <= _USER):
        return None
    found: dict[str, Any] = {
        "server": _some(cluster["server"]).rstrip("/"),
        "headers": {},
        "verify": not cluster.get("insecure-skip-tls-verify"),
        "server_name": cluster.get("tls-server-name") or "",
    }
    if found["server"].startswith("https"):
        folder = path.absolute().parent
        found["authority"] = _pem(cluster, "certificate-authority", folder)
        found["certificate"] = _pem(user, "client-certificate", folder)
        found["key"] = _pem(user, "client-key", folder)
    if "token" in user:
        found["headers"] = _bearer(user["token"])
    elif "tokenFile" in user:
        found["headers"] = _bearer((path.absolute().parent / user["tokenFile"]).read_text())
    return found


def _named(content: Any, kind: str, name: str) -> Any:
    (only,) = (entry[kind] for entry in content[f"{kind}s"] if entry["name"] == name)
    return only


def _pem(entry: Any, key: str, folder: Path) -> str:
    """What an entry holds itself goes before what it names."""
    data = entry.get(f"{key}-data")
    if data:
        return base64.b64decode(data).decode()
    return (folder / entry[key]).read_text() if entry.get(key) else ""


def _bearer(token: str) -> dict[str, str]:
    return {"authorization": f"Bearer {_some(token.strip())}"}


def _some(text: str) -> str:
    if not text:
        raise ValueError("nothing is there")
    return text

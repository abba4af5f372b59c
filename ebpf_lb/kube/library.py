"""The kubernetes library, in a process of its own: what it knows of credentials, as JSON.

Kubeconfig files, exec plugins, identity providers and a pod's service account are its trade. But it
and what it imports take 12 MB, and an agent on every node needs it a second an hour, if at all
(`plain`): `credentials` runs this module when there is something to ask.
"""

import json
import sys
from pathlib import Path
from typing import Any

import yaml
from kubernetes.client import Configuration
from kubernetes.client.rest import RESTClientObject
from kubernetes.config import ConfigException
from kubernetes.config.incluster_config import load_incluster_config
from kubernetes.config.kube_config import load_kube_config

from ebpf_lb.errors import UserError
from ebpf_lb.kube import plain
from ebpf_lb.kube.stamps import stamps


def load(kubeconfig: Path | None, server: str | None) -> Configuration:
    """As the library reads them; UserError."""
    configuration = Configuration()
    if kubeconfig is None:
        try:
            load_incluster_config(client_configuration=configuration)
        except ConfigException as error:
            raise UserError(
                "There is no way to the API server: no kubeconfig file is named, and this is not "
                f"a pod with a service account ({_sentence(error)}); use --kubeconfig FILE."
            ) from None
    else:
        _load_file(kubeconfig, configuration)
    if server is not None:
        configuration.host = server
    return configuration


def describe(configuration: Configuration) -> dict[str, Any]:
    """The fields of `credentials.Credentials`; UserError if a certificate cannot be used."""
    try:
        pool = RESTClientObject(configuration).pool_manager
        return {
            "server": str(configuration.host).rstrip("/"),
            "headers": _headers(configuration),
            "verify": bool(configuration.verify_ssl),
            "authority": _read(configuration.ssl_ca_cert),
            "certificate": _read(configuration.cert_file),
            "key": _read(configuration.key_file),
            "server_name": configuration.tls_server_name or "",
            # the library knows for which servers a proxy of the environment is not meant
            "proxy": str(configuration.proxy) if getattr(pool, "proxy", None) else "",
            "proxy_headers": dict(configuration.proxy_headers or {}),
        }
    except (OSError, ValueError, TypeError) as error:
        raise UserError(
            f"The credentials for the API server {configuration.host} cannot be used: "
            f"{_sentence(error)}."
        ) from None


def _headers(configuration: Configuration) -> dict[str, str]:
    headers = {}
    for setting in configuration.auth_settings().values():
        if setting.get("in") == "header" and setting.get("value"):
            headers[setting["key"]] = setting["value"]
    if configuration.username and "authorization" not in headers:
        headers["authorization"] = configuration.get_basic_auth_token()
    return headers


def _read(path: str | None) -> str:
    """Content instead of names: what a kubeconfig holds itself is in files that go with us."""
    return Path(path).read_text() if path else ""


def _load_file(path: Path, configuration: Configuration) -> None:
    if not path.exists():
        raise UserError(
            f"The kubeconfig file {path} does not exist; name one that does with --kubeconfig FILE."
        )
    try:
        load_kube_config(
            config_file=str(path), client_configuration=configuration, persist_config=False
        )
    except OSError as error:
        raise UserError(
            f"The kubeconfig file {path} cannot be used: {error.strerror or error}"
            + (f" ({error.filename})." if error.filename else ".")
        ) from None
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f" in line {mark.line + 1}" if mark is not None else ""
        raise UserError(f"The kubeconfig file {path} is not YAML{where}; correct it.") from None
    except (ConfigException, ValueError, TypeError, LookupError, AttributeError) as error:
        raise UserError(
            f"The kubeconfig file {path} does not say how to reach a cluster: {_sentence(error)}; "
            "correct it or name another with --kubeconfig FILE."
        ) from None


def _sentence(error: BaseException) -> str:
    return " ".join(str(error).split()).rstrip(".") or type(error).__name__


def main(kubeconfig: str, server: str) -> None:
    """Prints one JSON document; empty arguments stand for None."""
    path = Path(kubeconfig) if kubeconfig else None
    named = plain.files(path)
    before = stamps(named)
    try:
        found = describe(load(path, server or None)) | {"files": named, "read_at": before}
    except UserError as error:
        found = {"error": str(error)}
    print(json.dumps(found))


if __name__ == "__main__":
    main(*sys.argv[1:3])

"""Kubeconfigs for the lab's API server: by its own address, over TLS, with its token."""

import base64

import yaml

from ebpf_lb.lab.names import LabNames, api_url
from ebpf_lb.lab.options import Options


def text(names: LabNames, options: Options, host: str) -> str:
    """A kubeconfig in YAML that holds all it needs. It works where the control plane's machine can
    be reached: in the lab's namespaces. `host` names the user in it."""
    authority = (names.api_dir / "ca.crt").read_bytes()
    token = (names.api_dir / "token").read_text().strip()
    cluster = f"ebpf-lb-{names.name}"
    config = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [
            {
                "name": cluster,
                "cluster": {
                    "server": api_url(options),
                    "certificate-authority-data": base64.b64encode(authority).decode(),
                },
            }
        ],
        "users": [{"name": host, "user": {"token": token}}],
        "contexts": [{"name": cluster, "context": {"cluster": cluster, "user": host}}],
        "current-context": cluster,
    }
    return yaml.safe_dump(config, sort_keys=False)


def write(names: LabNames, options: Options, host: str) -> None:
    path = names.kubeconfig(host)
    path.parent.mkdir(exist_ok=True)
    path.touch(mode=0o600)
    path.write_text(text(names, options, host))

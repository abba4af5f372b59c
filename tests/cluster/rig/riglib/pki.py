"""The cluster's small certificate authority and the kubeconfigs."""

import base64
import json

from . import conf
from .proc import run

DIR = conf.RUN / "pki"
KEY = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"]


def certificate(name, common_name, group=None, names=()):
    """name.crt and name.key, for a client and, with names, for a server."""
    subject = (f"/O={group}" if group else "") + f"/CN={common_name}"
    extensions = [
        "-addext",
        "keyUsage=critical,digitalSignature",
        "-addext",
        "basicConstraints=critical,CA:FALSE",
        "-addext",
        "extendedKeyUsage=clientAuth" + (",serverAuth" if names else ""),
    ]
    if names:
        extensions += ["-addext", "subjectAltName=" + ",".join(names)]
    run(
        "openssl",
        "req",
        "-x509",
        "-days",
        "3650",
        *KEY,
        "-CA",
        DIR / "ca.crt",
        "-CAkey",
        DIR / "ca.key",
        "-keyout",
        DIR / f"{name}.key",
        "-out",
        DIR / f"{name}.crt",
        "-subj",
        subject,
        *extensions,
    )


def kubeconfig(name):
    def data(file):
        return base64.b64encode((DIR / file).read_bytes()).decode()

    (DIR / f"{name}.kubeconfig").write_text(
        json.dumps(
            {
                "apiVersion": "v1",
                "kind": "Config",
                "current-context": "rig",
                "clusters": [
                    {
                        "name": "rig",
                        "cluster": {
                            "server": conf.API,
                            "certificate-authority-data": data("ca.crt"),
                        },
                    }
                ],
                "users": [
                    {
                        "name": name,
                        "user": {
                            "client-certificate-data": data(f"{name}.crt"),
                            "client-key-data": data(f"{name}.key"),
                        },
                    }
                ],
                "contexts": [{"name": "rig", "context": {"cluster": "rig", "user": name}}],
            },
            indent=1,
        )
    )


def up(state):
    DIR.mkdir(parents=True, exist_ok=True)
    run(
        "openssl",
        "req",
        "-x509",
        "-days",
        "3650",
        *KEY,
        "-keyout",
        DIR / "ca.key",
        "-out",
        DIR / "ca.crt",
        "-subj",
        f"/CN={conf.PREFIX}-ca",
        "-addext",
        "keyUsage=critical,digitalSignature,keyCertSign,cRLSign",
    )
    run("openssl", "ecparam", "-genkey", "-name", "prime256v1", "-noout", "-out", DIR / "sa.key")
    run("openssl", "ec", "-in", DIR / "sa.key", "-pubout", "-out", DIR / "sa.pub")
    certificate(
        "apiserver",
        "kube-apiserver",
        names=[
            "DNS:kubernetes",
            "DNS:kubernetes.default",
            "DNS:kubernetes.default.svc",
            f"DNS:kubernetes.default.svc.{conf.DOMAIN}",
            "DNS:localhost",
            "IP:127.0.0.1",
            f"IP:{conf.UNDERLAY[0]}{conf.CONTROL}",
            "IP:" + conf.SERVICES[0].replace(".0/16", ".1"),
            "IP:" + conf.SERVICES[1].replace("/112", "1"),
        ],
    )
    certificate("apiserver-kubelet", "kube-apiserver-kubelet", "system:masters")
    users = {
        "admin": ("rig-admin", "system:masters"),
        "controllers": ("system:kube-controller-manager", None),
        "scheduler": ("system:kube-scheduler", None),
        "proxy": ("system:kube-proxy", None),
    }
    for node in state.node_list():
        users[node.name] = (f"system:node:{node.name}", "system:nodes")
    for name, (common_name, group) in users.items():
        certificate(name, common_name, group)
        kubeconfig(name)

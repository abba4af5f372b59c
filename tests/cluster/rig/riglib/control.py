"""The control plane (etcd, API server, controllers, scheduler) and the cluster's own objects."""

import json

from . import conf, images, pki
from .proc import in_netns, run, start, stop, wait_for

PROGRAMS = ["etcd", "kube-apiserver", "kube-controller-manager", "kube-scheduler"]


def kubectl(*words, stdin=None, check=True, timeout=120):
    return run(
        *in_netns("client"),
        conf.BIN / "kubectl",
        "--kubeconfig",
        pki.DIR / "admin.kubeconfig",
        *words,
        stdin=stdin,
        check=check,
        timeout=timeout,
    )


def apply(*objects):
    text = json.dumps({"apiVersion": "v1", "kind": "List", "items": objects})
    kubectl("apply", "-f", "-", stdin=text)


def families(pair, dual):
    return list(pair) if dual else [pair[0]]


def flags(**values):
    return [f"--{key.replace('_', '-')}={value}" for key, value in values.items()]


def programs(state):
    """Each program's flags, in the order in which they are started."""
    services = ",".join(families(conf.SERVICES, state.dual))
    yield (
        "etcd",
        [
            *flags(
                data_dir=conf.RUN / "etcd",
                listen_client_urls="http://127.0.0.1:2379",
                advertise_client_urls="http://127.0.0.1:2379",
                listen_peer_urls="http://127.0.0.1:2380",
                initial_advertise_peer_urls="http://127.0.0.1:2380",
                initial_cluster="default=http://127.0.0.1:2380",
            ),
            "--unsafe-no-fsync",
        ],
    )
    yield (
        "kube-apiserver",
        flags(
            etcd_servers="http://127.0.0.1:2379",
            secure_port=6443,
            bind_address="0.0.0.0",
            advertise_address=f"{conf.UNDERLAY[0]}{conf.CONTROL}",
            service_cluster_ip_range=services,
            tls_cert_file=pki.DIR / "apiserver.crt",
            tls_private_key_file=pki.DIR / "apiserver.key",
            client_ca_file=pki.DIR / "ca.crt",
            authorization_mode="Node,RBAC",
            enable_admission_plugins="NodeRestriction",
            allow_privileged="true",
            kubelet_client_certificate=pki.DIR / "apiserver-kubelet.crt",
            kubelet_client_key=pki.DIR / "apiserver-kubelet.key",
            kubelet_preferred_address_types="InternalIP",
            service_account_key_file=pki.DIR / "sa.pub",
            service_account_signing_key_file=pki.DIR / "sa.key",
            service_account_issuer=f"https://kubernetes.default.svc.{conf.DOMAIN}",
        ),
    )
    yield (
        "kube-controller-manager",
        flags(
            kubeconfig=pki.DIR / "controllers.kubeconfig",
            leader_elect="false",
            use_service_account_credentials="true",
            root_ca_file=pki.DIR / "ca.crt",
            service_account_private_key_file=pki.DIR / "sa.key",
            cluster_signing_cert_file=pki.DIR / "ca.crt",
            cluster_signing_key_file=pki.DIR / "ca.key",
            service_cluster_ip_range=services,
            allocate_node_cidrs="false",
        ),
    )
    yield "kube-scheduler", flags(kubeconfig=pki.DIR / "scheduler.kubeconfig", leader_elect="false")


def up(state):
    for name, words in programs(state):
        start(state, name, [*in_netns("control"), conf.BIN / name, *words])
        if name == "kube-apiserver":
            wait_for(
                "the API server",
                lambda: kubectl("get", "--raw", "/readyz", "--request-timeout=3s") == "ok",
                every=1,
            )
    for node in state.node_list():
        apply(node_object(node))


def down(state):
    for name in reversed(PROGRAMS):
        stop(state, name, grace=2)


def node_object(node):
    """Made before the node's kubelet starts, so that the pod ranges and zones are ours."""
    return {
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {
            "name": node.name,
            "labels": {
                "kubernetes.io/hostname": node.name,
                "topology.kubernetes.io/zone": node.zone,
                "topology.kubernetes.io/region": "region-a",
            },
        },
        "spec": {"podCIDR": node.pod_cidrs[0], "podCIDRs": node.pod_cidrs},
    }


def nodes_ready(state):
    listed = json.loads(kubectl("get", "nodes", "-o", "json"))["items"]
    ready = [
        item
        for item in listed
        for condition in item.get("status", {}).get("conditions", [])
        if condition["type"] == "Ready"
        and condition["status"] == "True"
        and not item["spec"].get("taints")
    ]
    return len(ready) == state.nodes


def not_ready(node):
    """Until its kubelet says otherwise: what is known is of before."""
    condition = {"type": "Ready", "status": "Unknown", "reason": "Restarted"}
    patch = json.dumps({"status": {"conditions": [condition]}})
    kubectl("patch", "node", node.name, "--subresource=status", "-p", patch)


COREFILE = f"""
.:53 {{
    errors
    health
    ready
    kubernetes {conf.DOMAIN} in-addr.arpa ip6.arpa {{
        pods insecure
        fallthrough in-addr.arpa ip6.arpa
        ttl 30
    }}
    cache 30 {{
        disable success {conf.DOMAIN}
        disable denial {conf.DOMAIN}
    }}
    loadbalance
}}
"""


def cluster_dns(state):
    meta = {"name": "coredns", "namespace": "kube-system"}
    labels = {"k8s-app": "kube-dns"}
    apply(
        {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": meta},
        {
            "apiVersion": "rbac.authorization.k8s.io/v1",
            "kind": "ClusterRole",
            "metadata": {"name": "rig:coredns"},
            "rules": [
                {
                    "apiGroups": [""],
                    "resources": ["services", "pods", "namespaces"],
                    "verbs": ["list", "watch"],
                },
                {
                    "apiGroups": ["discovery.k8s.io"],
                    "resources": ["endpointslices"],
                    "verbs": ["list", "watch"],
                },
            ],
        },
        {
            "apiVersion": "rbac.authorization.k8s.io/v1",
            "kind": "ClusterRoleBinding",
            "metadata": {"name": "rig:coredns"},
            "roleRef": {
                "apiGroup": "rbac.authorization.k8s.io",
                "kind": "ClusterRole",
                "name": "rig:coredns",
            },
            "subjects": [{"kind": "ServiceAccount", **meta}],
        },
        {"apiVersion": "v1", "kind": "ConfigMap", "metadata": meta, "data": {"Corefile": COREFILE}},
        {
            "apiVersion": "apps/v1",
            "kind": "Deployment",
            "metadata": {**meta, "labels": labels},
            "spec": {
                "replicas": 1,
                "selector": {"matchLabels": labels},
                "template": {
                    "metadata": {"labels": labels},
                    "spec": {
                        "serviceAccountName": "coredns",
                        "dnsPolicy": "Default",
                        "priorityClassName": "system-cluster-critical",
                        "containers": [
                            {
                                "name": "coredns",
                                "image": images.DNS,
                                "imagePullPolicy": "Never",
                                "args": ["-conf", "/etc/coredns/Corefile"],
                                "ports": [
                                    {"name": "dns", "containerPort": 53, "protocol": "UDP"},
                                    {"name": "dns-tcp", "containerPort": 53},
                                ],
                                "readinessProbe": {
                                    "httpGet": {"path": "/ready", "port": 8181},
                                    "periodSeconds": 2,
                                },
                                "volumeMounts": [{"name": "config", "mountPath": "/etc/coredns"}],
                            }
                        ],
                        "volumes": [{"name": "config", "configMap": {"name": "coredns"}}],
                    },
                },
            },
        },
        {
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": {"name": "kube-dns", "namespace": "kube-system", "labels": labels},
            "spec": {
                "selector": labels,
                "clusterIP": conf.DNS[0],
                "clusterIPs": families(conf.DNS, state.dual),
                "ipFamilyPolicy": "RequireDualStack" if state.dual else "SingleStack",
                "ports": [
                    {"name": "dns", "port": 53, "protocol": "UDP"},
                    {"name": "dns-tcp", "port": 53},
                ],
            },
        },
    )

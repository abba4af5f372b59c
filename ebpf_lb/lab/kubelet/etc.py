"""A pod's /etc/resolv.conf and /etc/hosts, as the kubelet writes them."""

from collections.abc import Sequence
from typing import Any

from ebpf_lb.lab.names import CLUSTER_DOMAIN

Json = dict[str, Any]

_NDOTS = "ndots:5"


def resolv_conf(pod: Json, name_servers: Sequence[str]) -> str | None:
    """None: the machine's own. `name_servers`: cluster DNS, none where the lab has none."""
    spec = pod["spec"]
    policy = spec.get("dnsPolicy", "ClusterFirst")
    if policy == "ClusterFirst" and spec.get("hostNetwork"):
        policy = "Default"
    servers: list[str] = []
    searches: list[str] = []
    options: list[str] = []
    if policy in ("ClusterFirst", "ClusterFirstWithHostNet"):
        if not name_servers:
            return None
        services = f"svc.{CLUSTER_DOMAIN}"
        servers, options = list(name_servers), [_NDOTS]
        searches = [f"{pod['metadata']['namespace']}.{services}", services, CLUSTER_DOMAIN]
    elif policy == "Default":
        return None
    config = spec.get("dnsConfig") or {}
    servers += config.get("nameservers") or []
    searches += config.get("searches") or []
    for option in config.get("options") or ():
        name = option["name"]
        options = [old for old in options if old.partition(":")[0] != name]
        options.append(f"{name}:{option['value']}" if option.get("value") else name)
    lines = [f"nameserver {server}" for server in dict.fromkeys(servers)]
    if searches:
        lines.insert(0, f"search {' '.join(dict.fromkeys(searches))}")
    if options:
        lines.append(f"options {' '.join(options)}")
    return "\n".join(lines) + "\n"


def hosts(pod: Json, addresses: Sequence[str]) -> str:
    """The pod's own name, with its whole one where it has a subdomain, and hostAliases."""
    spec, namespace = pod["spec"], pod["metadata"]["namespace"]
    name = spec.get("hostname") or pod["metadata"]["name"]
    if subdomain := spec.get("subdomain"):
        name = f"{name}.{subdomain}.{namespace}.svc.{CLUSTER_DOMAIN}\t{name}"
    lines = ["127.0.0.1\tlocalhost", "::1\tlocalhost ip6-localhost ip6-loopback"]
    lines += [f"{address}\t{name}" for address in addresses]
    lines += [f"{a['ip']}\t{' '.join(a['hostnames'])}" for a in spec.get("hostAliases") or ()]
    return "\n".join(lines) + "\n"

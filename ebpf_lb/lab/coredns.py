"""Puts cluster DNS into a lab. The kubelet starts its pods as `ebpf_lb.containers.dns`."""

from pathlib import Path

from ebpf_lb.apiserver.kinds import SERVICE
from ebpf_lb.lab.names import dns_addresses
from ebpf_lb.lab.objects.apply import apply_each
from ebpf_lb.lab.objects.client import Client
from ebpf_lb.lab.objects.manifest import read_manifests
from ebpf_lb.lab.options import Options

_MANIFEST = Path(__file__).with_name("coredns.yaml")


def install(client: Client, options: Options) -> None:
    """Applies coredns.yaml, with the addresses that pods' resolv.conf names."""
    documents = list(read_manifests([str(_MANIFEST)]))
    addresses = list(dns_addresses(options))
    for document in documents:
        for kind, object_ in document.items:
            if kind is SERVICE:
                object_["spec"] |= {"clusterIP": addresses[0], "clusterIPs": addresses}
    list(apply_each(client, documents))

"""A pod on this machine: network namespace, veth, addresses, cgroup and server process."""

import hashlib
import ipaddress
import os
import select
import shutil
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import ebpf_lb
from ebpf_lb.errors import UserError
from ebpf_lb.lab import cgroups, namespaces, pods, topology
from ebpf_lb.lab.kubelet import environment, etc, manifest
from ebpf_lb.lab.kubelet.ipam import AddressPool
from ebpf_lb.lab.links import Links
from ebpf_lb.lab.names import POD_BRIDGE, UPLINK, Interface, LabNames, NodeNames, dns_addresses
from ebpf_lb.lab.options import Options
from ebpf_lb.lab.pods import Pod
from ebpf_lb.lab.processes import Place, spawn

Json = dict[str, Any]

_READY_WITHIN_S = 30  # on a busy machine; a server that cannot start ends at once


class SandboxError(UserError):
    """A pod's server did not come up."""


@dataclass(slots=True)
class Starting:
    """A pod whose server has been started; by `ready_fd` it says that its ports are open."""

    pod: Pod
    ready_fd: int

    def dismiss(self) -> None:
        """Nobody waits for it any more."""
        os.close(self.ready_fd)


class Node:
    """The pods of one node."""

    def __init__(self, names: NodeNames, options: Options):
        self._names = names
        self._options = options
        self._addresses = AddressPool(names)
        self._links = Links(names.netns)
        self._mtu = topology.pod_mtu(options)

    @property
    def names(self) -> NodeNames:
        return self._names

    @property
    def _lab(self) -> LabNames:
        return self._names.lab

    def start(self, manifest_: Json, services: list[Json]) -> Starting:
        """Makes a pod; what a start of the same pod that failed half-way left is replaced.
        services: those that its environment tells of.

        Raises UserError, or OSError and pyroute2's NetlinkError where the kernel refuses."""
        metadata = manifest_["metadata"]
        namespace, name = metadata["namespace"], metadata["name"]
        host_network = bool(manifest_["spec"].get("hostNetwork"))
        cgroup = self._names.cgroup / "pods" / f"{namespace}_{name}"
        cgroups.make(cgroup)
        if host_network:
            netns, addresses = self._names.netns, self._names.addresses
        else:
            netns = self._lab.pod_netns(namespace, name)
            addresses = self._network(namespace, name, netns)
        return self._serve(
            manifest_,
            Pod(
                namespace=namespace,
                name=name,
                uid=metadata["uid"],
                node=self._names.name,
                addresses=addresses,
                host_network=host_network,
                netns=netns,
                cgroup=cgroup,
                environment=environment.variables(manifest_, services, addresses),
                files=self._files(manifest_, addresses),
                pid=0,
                start=0,
            ),
        )

    def _files(self, manifest_: Json, addresses: tuple[str, ...]) -> dict[str, str]:
        """What the pod has in place of the machine's."""
        servers = dns_addresses(self._options) if self._options.dns else ()
        texts = {"/etc/resolv.conf": etc.resolv_conf(manifest_, servers)}
        if not manifest_["spec"].get("hostNetwork"):
            texts["/etc/hosts"] = etc.hosts(manifest_, addresses)
        metadata = manifest_["metadata"]
        folder = self._lab.pod_files(metadata["namespace"], metadata["name"])
        folder.mkdir(parents=True, exist_ok=True)
        found = {}
        for place, text in texts.items():
            if text is not None:
                found[place] = str(folder / Path(place).name)
                Path(found[place]).write_text(text)
        return found

    def stop(self, pod: Pod) -> None:
        """Ends a pod: its processes, then its network. Gone already is fine."""
        cgroups.kill(pod.cgroup)
        shutil.rmtree(self._lab.pod_files(pod.namespace, pod.name), ignore_errors=True)
        if not pod.host_network:
            self._links.delete(host_link(pod.namespace, pod.name))
            namespaces.remove(pod.netns)
            self._addresses.give_back(pod.addresses)
        cgroups.remove(pod.cgroup)
        pods.record(self._lab, pod.namespace, pod.name).unlink(missing_ok=True)

    def _network(self, namespace: str, name: str, netns: Path) -> tuple[str, ...]:
        link = host_link(namespace, name)
        self._links.delete(link)
        namespaces.remove(netns)
        interfaces = self._addresses.take()
        addresses = tuple(str(interface.ip) for interface in interfaces)
        try:
            topology.make_namespace(netns)
            if self._options.pods == "bridge":
                self._plug_into_bridge(link, netns, interfaces)
            else:
                self._route_to(link, netns, interfaces)
        except BaseException:
            self._addresses.give_back(addresses)
            raise
        return addresses

    def _plug_into_bridge(self, link: str, netns: Path, interfaces: tuple[Interface, ...]) -> None:
        self._links.veth(
            link,
            UPLINK,
            netns,
            bridge=POD_BRIDGE,
            hairpin=self._options.hairpin_mode,
            mtu=self._mtu,
        )
        with Links(netns) as inside:
            inside.address(UPLINK, interfaces)
            inside.up(UPLINK)
            inside.default_routes(gateway.ip for gateway in topology.pod_gateways(self._names))

    def _route_to(self, link: str, netns: Path, interfaces: tuple[Interface, ...]) -> None:
        """As the CNI plugin ptp: the node's end of each pair has the gateway's address, and
        everything, other pods of the node included, goes by it."""
        gateways = [_alone(gateway) for gateway in topology.pod_gateways(self._names)]
        own = [_alone(interface) for interface in interfaces]
        self._links.veth(link, UPLINK, netns, mtu=self._mtu)
        self._links.address(link, gateways)
        with Links(netns) as inside:
            inside.address(UPLINK, own)
            inside.up(UPLINK)
            for gateway in gateways:
                inside.route(gateway.network, device=UPLINK)
            inside.default_routes(gateway.ip for gateway in gateways)
        for interface in own:
            self._links.route(interface.network, device=link)

    def _serve(self, manifest_: Json, pod: Pod) -> Starting:
        readable, writable = os.pipe()
        server = self._server(manifest_)
        try:
            process = spawn(
                Place(pod.netns, pod.cgroup, {"PYTHONPATH": str(_package_parent())}),
                [sys.executable, *server, f"--ready-fd={writable}"],
                self._lab.log(f"pods/{pod.namespace}_{pod.name}"),
                pass_fds=[writable],
            )
        except BaseException:
            os.close(readable)
            raise
        finally:
            os.close(writable)
        pod = replace(pod, pid=process.pid, start=process.start)
        pod.save(self._lab)
        return Starting(pod, readable)

    def _server(self, manifest_: Json) -> list[str]:
        if manifest.is_dns_server(manifest_):
            return self._dns_server(manifest_)
        if manifest.is_ingress_controller(manifest_):
            return self._ingress_controller(manifest_)
        return _pod_server(manifest_)

    def _ingress_controller(self, manifest_: Json) -> list[str]:
        metadata = manifest_["metadata"]
        folder = self._lab.pod_files(metadata["namespace"], metadata["name"]) / "nginx"
        words = manifest_["spec"]["containers"][0].get("args") or []
        publish = [word for word in words if word.startswith("--publish-service=")]
        api = self._lab.api_socket
        return ["-m", "ebpf_lb.containers.ingress", f"--api={api}", f"--dir={folder}", *publish]

    def _dns_server(self, manifest_: Json) -> list[str]:
        ports = manifest.ports(manifest_)
        port = min(ports.udp | ports.tcp)
        words = manifest_["spec"]["containers"][0].get("args") or []
        upstreams = [word for word in words if word.startswith("--upstream=")]
        api, config = self._lab.api_socket, self._lab.kubeconfig(self._names.name)
        access = [f"--api={api}", f"--kubeconfig={config}"]
        return ["-m", "ebpf_lb.containers.dns", *access, f"--port={port}", *upstreams]


def _pod_server(manifest_: Json) -> list[str]:
    """Without the site packages: they are what makes an interpreter slow to start."""
    ports = manifest.ports(manifest_)
    arguments = [
        f"--{protocol}={port}"
        for protocol in ("tcp", "udp", "sctp")
        for port in sorted(getattr(ports, protocol))
    ]
    name = manifest_["metadata"]["name"]
    return ["-S", "-s", "-m", "ebpf_lb.containers.podserver", f"--name={name}", *arguments]


def wait_until_serving(starting: Starting) -> None:
    """Raises SandboxError if the server has not opened its ports."""
    pod = starting.pod
    try:
        readable, _, _ = select.select([starting.ready_fd], [], [], _READY_WITHIN_S)
        ready = bool(readable) and os.read(starting.ready_fd, 1) != b""
    finally:
        os.close(starting.ready_fd)
    if not ready:
        raise SandboxError(
            f"the server of pod {pod.namespace}/{pod.name} did not open its ports: see its log"
        )


def host_link(namespace: str, name: str) -> str:
    """The node's end of the pod's veth pair, named as the bridge plugin does: veth and 8 digits."""
    return "veth" + hashlib.sha256(f"{namespace}/{name}".encode()).hexdigest()[:8]


def _alone(interface: Interface) -> Interface:
    """The address without its network."""
    return ipaddress.ip_interface((interface.ip, interface.max_prefixlen))


def _package_parent() -> Path:
    return Path(ebpf_lb.__file__).parent.parent

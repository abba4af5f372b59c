"""A node: its own network, mount, process, IPC and host name spaces, containerd and kubelet.

Inside it everything lies where it does on a real node (/var/lib/kubelet, /var/log/pods,
/run/containerd/containerd.sock, …); on the machine those are RUN/<node>/…"""

import contextlib
import json
import os
import signal
import sys
from pathlib import Path

from . import conf, images, net, pki
from .proc import in_netns, in_node, run, start, stop, wait_for

CGROUPS = Path("/sys/fs/cgroup")

# Runs as process 1 of the node: takes in orphans, and ends on SIGTERM (and with it the node).
INIT = """
import os, signal
wanted = {signal.SIGCHLD, signal.SIGTERM}
signal.pthread_sigmask(signal.SIG_BLOCK, wanted)
open(os.environ["READY"], "w").close()
while signal.sigwait(wanted) != signal.SIGTERM:
    try:
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass
    except ChildProcessError:
        pass
"""

# The node's view of the file system: own /proc, /sys (of its network), /run, /var/lib, /var/log.
SETUP = """
set -e
hostname "$NODE"
mount --rbind /sys/fs/cgroup "$DIR/cgroup"
mount -t sysfs sysfs /sys
mount --rbind "$DIR/cgroup" /sys/fs/cgroup
umount -l "$DIR/cgroup"
mount -t bpf bpf /sys/fs/bpf
mount -t tracefs tracefs /sys/kernel/tracing 2>/dev/null || true
mount -t proc proc /proc
mount -t tmpfs -o mode=755 run /run
mkdir -p /run/netns /run/lock /run/node-cgroup
mount --bind "$CGROUP" /run/node-cgroup
mount --bind "$DIR/var-lib" /var/lib
mount --bind "$DIR/var-log" /var/log
mount --bind "$DIR/hosts" /etc/hosts
mount --bind "$DIR/resolv.conf" /etc/resolv.conf
mount --make-rshared /
exec "$PYTHON" -c "$INIT"
"""


def cgroup_mounts():
    return [
        Path(line.split()[1])
        for line in Path("/proc/mounts").read_text().splitlines()
        if line.split()[2] in ("cgroup", "cgroup2")
    ]


def unified():
    """Where cgroup version 2 is mounted (the whole tree, or beside version 1)."""
    for line in Path("/proc/mounts").read_text().splitlines():
        if line.split()[2] == "cgroup2":
            return Path(line.split()[1])
    raise SystemExit("rig: cgroup version 2 is not mounted")


def cgroup_v2(node):
    """The version 2 cgroup with the node's pods and processes below it."""
    return Path(f"{unified()}{node.cgroup}")


def make_cgroups(node):
    for mount in cgroup_mounts():
        path = Path(f"{mount}{node.cgroup}")
        path.mkdir(exist_ok=True)
        for file in ("cpuset.cpus", "cpuset.mems"):
            if (mount / file).exists() and (path / file).exists():
                (path / file).write_text((mount / file).read_text())
    (cgroup_v2(node) / "host").mkdir(exist_ok=True)


def remove_cgroups(names=f"{conf.PREFIX}-*"):
    for mount in cgroup_mounts():
        for top in mount.glob(names):
            for path, _, _ in os.walk(top, topdown=False):
                with contextlib.suppress(OSError):  # still has an ending process
                    Path(path).rmdir()
    return [path for mount in cgroup_mounts() for path in mount.glob(names)]


def start_in(state, node, name, argv, env=None):
    """Starts a process of the node, as node/name."""
    return start(
        state,
        f"{node.name}/{name}",
        in_node(state, node) + list(argv),
        env=env,
        cgroups=[cgroup_v2(node) / "host"],
        forks=True,
    )


def make_init(state, node):
    for name in ("cgroup", "var-lib", "var-log", "cni"):
        (node.dir / name).mkdir(parents=True, exist_ok=True)
    (node.dir / "hosts").write_text(
        "127.0.0.1 localhost\n::1 localhost\n"
        + "".join(f"{ip} {other.name}\n" for other in state.node_list() for ip in other.ips)
    )
    (node.dir / "resolv.conf").write_text(f"nameserver {conf.DNS[0]}\n")
    ready = node.dir / "ready"
    start(
        state,
        f"{node.name}/init",
        [
            *in_netns(node.name),
            "unshare",
            "--mount",
            "--uts",
            "--ipc",
            "--pid",
            "--fork",
            "--kill-child=KILL",
            "bash",
            "-c",
            SETUP,
        ],
        forks=True,
        cgroups=[cgroup_v2(node) / "host"],
        env={
            "NODE": node.name,
            "DIR": str(node.dir),
            "CGROUP": str(cgroup_v2(node)),
            "INIT": INIT,
            "PYTHON": sys.executable,
            "READY": str(ready),
        },
    )
    wait_for(f"{node.name}'s process 1", ready.exists, timeout=20, every=0.05)


CONTAINERD = """
version = 2
disabled_plugins = ["io.containerd.snapshotter.v1.aufs", "io.containerd.snapshotter.v1.btrfs",
  "io.containerd.snapshotter.v1.devmapper", "io.containerd.snapshotter.v1.zfs",
  "io.containerd.tracing.processor.v1.otlp", "io.containerd.internal.v1.tracing"]
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "{pause}"
  disable_apparmor = true
  restrict_oom_score_adj = true
  disable_hugetlb_controller = true
  tolerate_missing_hugetlb_controller = true
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "/usr/lib/cni"
    conf_dir = "{cni}"
  [plugins."io.containerd.grpc.v1.cri".containerd]
    snapshotter = "overlayfs"
  [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
    runtime_type = "io.containerd.runc.v2"
    [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc.options]
      SystemdCgroup = false
"""


def cni_config(state, node):
    ipam = {
        "type": "host-local",
        "dataDir": "/run/cni-ipam",
        "ranges": [[{"subnet": cidr}] for cidr in node.pod_cidrs],
        "routes": [{"dst": "0.0.0.0/0"}] + ([{"dst": "::/0"}] if state.dual else []),
    }
    if state.cni == "ptp":  # no bridge: every packet between pods is routed by the node
        plugin = {"type": "ptp", "mtu": 1500, "ipMasq": False, "ipam": ipam}
    else:
        plugin = {
            "type": "bridge",
            "bridge": "cni0",
            "mtu": 1500,
            "isGateway": True,
            "hairpinMode": True,
            "ipMasq": False,
            "ipam": ipam,
        }
    return {
        "cniVersion": "1.0.0",
        "name": conf.PREFIX,
        "plugins": [
            plugin,
            {"type": "portmap", "snat": True, "capabilities": {"portMappings": True}},
        ],
    }


def kubelet_config(state, node):
    return {
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "kind": "KubeletConfiguration",
        "containerRuntimeEndpoint": "unix:///run/containerd/containerd.sock",
        "authentication": {
            "anonymous": {"enabled": False},
            "webhook": {"enabled": True},
            "x509": {"clientCAFile": str(pki.DIR / "ca.crt")},
        },
        "authorization": {"mode": "Webhook"},
        "clusterDomain": conf.DOMAIN,
        "clusterDNS": [conf.DNS[0]],
        "resolvConf": str(node.dir / "resolv.conf"),
        "cgroupDriver": "cgroupfs",
        "cgroupRoot": node.cgroup,
        "failCgroupV1": False,
        "enforceNodeAllocatable": [],
        "failSwapOn": False,
        "serializeImagePulls": False,
        "volumePluginDir": "/var/lib/kubelet/volumeplugins",
        "imageGCHighThresholdPercent": 100,
        "evictionHard": {
            "memory.available": "50Mi",
            "nodefs.available": "0%",
            "nodefs.inodesFree": "0%",
            "imagefs.available": "0%",
        },
        "registryPullQPS": 0,
        "kubeAPIQPS": 100,
        "kubeAPIBurst": 200,
    }


def up(state, node, archive=None):
    """archive: of images; None where the node has them already."""
    make_cgroups(node)
    make_init(state, node)
    (node.dir / "containerd.toml").write_text(
        CONTAINERD.format(pause=images.pause_image(), cni=node.dir / "cni")
    )
    (node.dir / "cni" / "10-rig.conflist").write_text(json.dumps(cni_config(state, node), indent=1))
    (node.dir / "kubelet.json").write_text(json.dumps(kubelet_config(state, node), indent=1))
    start_in(state, node, "containerd", ["containerd", "-c", node.dir / "containerd.toml"])
    wait_for(f"{node.name}'s containerd", lambda: ctr(state, node, "version"), timeout=60)
    if archive:
        load(state, node, archive)
    start_kubelet(state, node)


def ctr(state, node, *words, timeout=120):
    return run(*in_node(state, node), "ctr", "-n", "k8s.io", *words, timeout=timeout)


def load(state, node, archive):
    ctr(state, node, "images", "import", archive, timeout=300)


def start_kubelet(state, node):
    start_in(
        state,
        node,
        "kubelet",
        [
            conf.BIN / "kubelet",
            f"--config={node.dir}/kubelet.json",
            f"--kubeconfig={node.kubeconfig}",
            f"--hostname-override={node.name}",
            f"--node-ip={','.join(node.ips)}",
            "-v=2",
        ],
    )


def restart_kubelet(state, node):
    """Its pods live on."""
    stop(state, f"{node.name}/kubelet")
    start_kubelet(state, node)
    ask = [*in_node(state, node), "curl", "-sf", "http://127.0.0.1:10248/healthz"]
    wait_for(f"{node.name}'s kubelet", lambda: run(*ask) == "ok")


def down(state, node):
    """Ends the node with everything in it: the kernel kills all of a process space with its 1."""
    stop(state, f"{node.name}/init", grace=0, sign=signal.SIGKILL)


def reboot(state, node):
    """As by its reset button: what is on disks stays, and nothing else."""
    down(state, node)
    wait_for(
        f"the end of {node.name}",
        lambda: not remove_cgroups(node.cgroup.lstrip("/")),
        timeout=60,
        every=0.2,
    )
    (node.dir / "ready").unlink()
    net.node_down(node)
    net.node_up(state, node)
    up(state, node)

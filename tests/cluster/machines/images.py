"""The images that kubeadm asks for, and the test's own, out of the rig's programs."""

from pathlib import Path

from tests.cluster.machines.stock import made, run, whole
from tests.cluster.rig.riglib import conf, images


def kubeadm_images() -> list[str]:
    version = run(conf.BIN / "kubelet", "--version").split()[1]
    listed = run(conf.BIN / "kubeadm", "config", "images", "list", "--kubernetes-version", version)
    return listed.split()


def agnhost() -> str:
    return images.e2e_images("agnhost")[-1]


def make_images(sandbox: str) -> Path:
    """An archive. sandbox: the image that containerd keeps a pod's namespaces with."""
    programs = [conf.BIN / name for name in ("kubeplane", "coredns", "agnhost", "pause")]
    stamps = [program.stat().st_mtime_ns for program in programs]
    folder, ready = made("images", sandbox, *stamps)
    archive = folder / "images.tar"
    if ready:
        return archive
    wanted = [
        ([sandbox], "pause", ["/pause"], []),
        ([agnhost()], "agnhost", ["/agnhost"], ["pause"]),
    ]
    for name in kubeadm_images():
        short = name.rpartition("/")[2].partition(":")[0]
        if name == sandbox or "kube-proxy" in name:
            continue
        if short in ("coredns", "pause"):
            wanted.append(([name], short, [f"/{short}"], []))
        else:  # the manifests say the program's name
            wanted.append(([name], "kubeplane", [], []))
    images.write(archive, wanted)
    whole(folder)
    return archive

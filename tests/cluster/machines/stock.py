"""What the machines download, made once into the rig's cache, and served by `outside` as it is."""

import hashlib
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

from tests.cluster.rig.riglib import conf

ROOT = Path(__file__).parents[3]
CACHE = conf.CACHE / "machines"
SUITE = "bookworm"
BOX = ("systemd", "systemd-sysv", "dbus", "udev", "ca-certificates", "python3", "iproute2",
       "procps", "kmod", "sudo", "iputils-ping")  # fmt: skip
# what Kubernetes' packages depend on
NEEDED = ("conntrack", "ethtool", "iptables", "socat", "util-linux", "mount")
LOCKS = ("build", "lab", "dev")
_KUBERNETES = ("kubelet", "kubeadm", "kubectl", "kubernetes-cni")
_KUBELET_UNIT = r"""
[Unit]
Description=kubelet: The Kubernetes Node Agent
Wants=network-online.target
After=network-online.target

[Service]
Environment="KUBELET_KUBECONFIG_ARGS=\
--bootstrap-kubeconfig=/etc/kubernetes/bootstrap-kubelet.conf \
--kubeconfig=/etc/kubernetes/kubelet.conf"
Environment="KUBELET_CONFIG_ARGS=--config=/var/lib/kubelet/config.yaml"
EnvironmentFile=-/var/lib/kubelet/kubeadm-flags.env
EnvironmentFile=-/etc/default/kubelet
ExecStart=/usr/bin/kubelet $KUBELET_KUBECONFIG_ARGS $KUBELET_CONFIG_ARGS $KUBELET_KUBEADM_ARGS \
    $KUBELET_EXTRA_ARGS
Restart=always
StartLimitInterval=0
RestartSec=10

[Install]
WantedBy=multi-user.target
"""
_PATIENTLY = ("-o", "Acquire::Retries=10")


def run(*words: object, **options: object) -> str:
    done = subprocess.run(
        [str(word) for word in words], text=True, capture_output=True, check=False, **options
    )  # type: ignore[call-overload]
    assert done.returncode == 0, f"{shlex.join(map(str, words))}: {done.stdout}{done.stderr}"
    return str(done.stdout)


def made(name: str, *parts: object) -> tuple[Path, bool]:
    """A folder for something that depends on these parts, and whether it is there already."""
    digest = hashlib.sha256(repr(parts).encode() + Path(__file__).read_bytes()).hexdigest()[:12]
    folder = CACHE / f"{name}-{digest}"
    if (folder / ".whole").exists():
        return folder, True
    for old in CACHE.glob(f"{name}-*"):
        shutil.rmtree(old)
    folder.mkdir(parents=True)
    return folder, False


def whole(folder: Path) -> Path:
    (folder / ".whole").touch()
    return folder


# --- Debian


def box() -> Path:
    """A root file system, as a tar, which knows where its packages are: Vagrant's box."""
    folder, ready = made("box", BOX)
    if ready:
        return folder / "root.tar"
    targets = run("apt-get", "indextargets", "--format", "$(RELEASE) $(COMPONENT) $(SITE)",
                  "Identifier: Packages")  # fmt: skip
    sites = (line.split()[2] for line in targets.splitlines() if line.startswith(f"{SUITE} main "))
    run("mmdebstrap", "--quiet", "--mode=root", "--variant=minbase",
        '--aptopt=APT::Sandbox::User "root"', '--aptopt=Acquire::Retries "10"',
        f"--include={','.join(BOX)}", SUITE, folder / "root.tar", *list(sites)[:1])  # fmt: skip
    whole(folder)
    return folder / "root.tar"


def wanted() -> list[str]:
    """Debian's packages that the provisioning installs."""
    names = {*NEEDED, "nginx", *run("make", "-s", "-C", ROOT, "list-packages").split()}
    for script in (ROOT / "vagrant").glob("*.sh"):
        text = script.read_text().replace("\\\n", " ")
        for line in re.findall(r"apt-get install (.*)", text):
            names |= {word for word in line.split() if not word.startswith("-")}
    return sorted(names - set(_KUBERNETES))


def debian(scratch: Path) -> Path:
    """An archive of what is wanted and what that depends on. scratch: for the box, unpacked."""
    names = wanted()
    folder, ready = made("debian", names, BOX)
    if ready:
        return folder
    root = scratch / "apt"
    root.mkdir()
    run("tar", "-xf", box(), "-C", root)
    for file in ("/etc/hosts", "/etc/resolv.conf", "/etc/ssl/certs/ca-certificates.crt"):
        shutil.copy(file, root / file[1:])
    run("chroot", root, "apt-get", "-qq", *_PATIENTLY, "update")
    run("chroot", root, "apt-get", "-qq", *_PATIENTLY, "install", "-y", "--download-only",
        "--no-install-recommends", *names)  # fmt: skip
    pool = folder / "debian" / "pool"
    pool.mkdir(parents=True)
    for package in (root / "var/cache/apt/archives").glob("*.deb"):
        shutil.move(package, pool)
    suite = folder / "debian" / "dists" / SUITE
    binary = suite / "main" / "binary-amd64"
    binary.mkdir(parents=True)
    (binary / "Packages").write_text(_index(sorted(pool.iterdir()), folder / "debian"))
    (suite / "Release").write_text(
        f"Suite: {SUITE}\nCodename: {SUITE}\nComponents: main\nArchitectures: amd64\n"
        + _sums([binary / "Packages"], suite)
    )
    shutil.rmtree(root)
    return whole(folder)


def _index(packages: Iterable[Path], top: Path) -> str:
    """A file Packages."""
    return "\n".join(
        f"{run('dpkg-deb', '--field', package)}Filename: {package.relative_to(top)}\n"
        f"Size: {package.stat().st_size}\nSHA256: {_sha256(package)}\n"
        for package in packages
    )


def _sums(files: Iterable[Path], top: Path) -> str:
    lines = (f" {_sha256(f)} {f.stat().st_size} {f.relative_to(top)}\n" for f in files)
    return "SHA256:\n" + "".join(lines)


def _sha256(file: Path) -> str:
    with file.open("rb") as data:
        return hashlib.file_digest(data, "sha256").hexdigest()


# --- Kubernetes


def kubernetes(old_cgroups: bool) -> Path:
    """Kubernetes' own archive, signed, with the rig's programs: its flat form, as pkgs.k8s.io has
    it. old_cgroups: kubelet and kubeadm are to put up with version 1."""
    program = conf.BIN / "kubeplane"
    folder, ready = made("kubernetes", program.stat().st_mtime_ns, old_cgroups)
    if ready:
        return folder
    version = run(conf.BIN / "kubelet", "--version").split()[1].removeprefix("v")
    for name in _KUBERNETES:
        _package(folder, name, version, old_cgroups)
    (folder / "Packages").write_text(_index(sorted(folder.glob("*.deb")), folder))
    (folder / "Release").write_text("Suite: deb\n" + _sums([folder / "Packages"], folder))
    _sign(folder)
    return whole(folder)


def _package(folder: Path, name: str, version: str, old_cgroups: bool) -> None:
    tree = folder / name
    (tree / "DEBIAN").mkdir(parents=True)
    depends = {"kubelet": ", ".join((*NEEDED, "kubernetes-cni")), "kubeadm": "kubelet, kubectl"}
    (tree / "DEBIAN" / "control").write_text(
        f"Package: {name}\nVersion: {version}-1.1\nArchitecture: amd64\nMaintainer: the rig\n"
        f"Depends: {depends.get(name, 'libc6')}\nDescription: {name} of the rig\n"
    )
    if name == "kubernetes-cni":
        shutil.copytree("/usr/lib/cni", tree / "opt/cni/bin")
    else:
        program = tree / "usr/bin" / name
        program.parent.mkdir(parents=True)
        program.write_text(_program(name, old_cgroups))
        program.chmod(0o755)
    if name == "kubelet":
        own = tree / "usr/libexec/kubeplane"
        own.parent.mkdir(parents=True)
        shutil.copy(conf.BIN / "kubeplane", own)
        unit = tree / "lib/systemd/system/kubelet.service"
        unit.parent.mkdir(parents=True)
        unit.write_text(_KUBELET_UNIT)
        script = tree / "DEBIAN" / "postinst"
        script.write_text("#!/bin/sh\nset -e\nsystemctl daemon-reload\nsystemctl enable kubelet\n")
        script.chmod(0o755)
    run("dpkg-deb", "--build", "--root-owner-group", "-Znone", tree, folder)
    shutil.rmtree(tree)


def _program(name: str, old_cgroups: bool) -> str:
    more = ""
    if old_cgroups and name == "kubelet":
        more = " --fail-cgroupv1=false"
    if old_cgroups and name == "kubeadm":
        more = " --ignore-preflight-errors=SystemVerification"
    if not more:
        return f'#!/bin/sh\nexec /usr/libexec/kubeplane {name} "$@"\n'
    return (
        '#!/bin/sh\ncase $1 in init|join|-*) set -- "$@"' + more + " ;; esac\n"
        f'exec /usr/libexec/kubeplane {name} "$@"\n'
    )


def _sign(folder: Path) -> None:
    home = folder / "gpg"
    home.mkdir(mode=0o700)
    gpg = ("gpg", "--homedir", home, "--batch", "--yes", "--quiet")
    run(*gpg, "--passphrase", "", "--quick-gen-key", "rig", "default", "sign")
    run(*gpg, "--armor", "--output", folder / "Release.key", "--export", "rig")
    run(*gpg, "--clearsign", "--output", folder / "InRelease", folder / "Release")
    run("gpgconf", "--homedir", home, "--kill", "all")
    shutil.rmtree(home)


# --- Python


def pypi() -> Path:
    """PyPI's pages for what `make setup` installs (PEP 503)."""
    locks = [ROOT / "requirements" / f"{name}.lock" for name in LOCKS]
    folder, ready = made("pypi", *(lock.read_bytes() for lock in locks))
    if ready:
        return folder
    files = folder / "files"
    options = [word for lock in locks for word in ("-r", lock)]
    run(sys.executable, "-m", "pip", "download", "-q", "--disable-pip-version-check", "--retries",
        "10", "--require-hashes", "--no-deps", "-d", files, *options)  # fmt: skip
    projects: dict[str, list[str]] = {}
    for file in sorted(files.iterdir()):
        project = re.split(r"-\d", file.name)[0]
        projects.setdefault(re.sub(r"[-_.]+", "-", project).lower(), []).append(file.name)
    for project, names in projects.items():
        page = folder / "simple" / project / "index.html"
        page.parent.mkdir(parents=True)
        page.write_text("".join(f'<a href="/files/{name}">{name}</a>\n' for name in names))
    return whole(folder)

"""The agent's image, as an OCI archive: `make image`. No container engine and no base image: what
Debian's packages and the agent's lock hold, and this project with its compiled programs.

    build.py ARCHIVE        and beside it ARCHIVE.spdx.json, what is in it
"""

import os
import shutil
import subprocess
import sys
import tempfile
import time
import tomllib
from pathlib import Path

import oci
import sbom

PROJECT = Path(__file__).parents[2]
MOST_BYTES = 150 * 10**6
PYTHON = "/usr/bin/python3"
PACKAGES = ("libbpf1", "python3-minimal", "libpython3-stdlib", "media-types", "netbase", "tzdata")
# what nobody reads in a container, and what only development takes
_SUPERFLUOUS = (
    "usr/share/doc",
    "usr/share/man",
    "usr/share/locale",
    "usr/share/lintian",
    "usr/share/info",
    "usr/share/bash-completion",
    "usr/lib/python3.11/pydoc_data",
    "usr/lib/python3.11/lib2to3",
    "usr/lib/python3.11/idlelib",
    "usr/lib/python3.11/ensurepip",
    "var/cache/apt",
    "var/lib/apt/lists",
    "var/log",
    "opt/ebpf-lb/bin",
    "opt/ebpf-lb/kubernetes/aio",
)
# Of the kubernetes library hardly anything is imported, and that seldom.
_NOT_COMPILED = "kubernetes/client/(api|models)/"
# folders of ebpf_lb that no node needs: the lab and all that is built upon it
LEFT_OUT = ("apiserver", "lab", "containers", "lessons", "cli/lab")
_LIBRARIES = "opt/ebpf-lb"
_LAUNCHER = f"""#!{PYTHON} -sE
import sys
sys.path.insert(0, "/{_LIBRARIES}")
from ebpf_lb.cli.main import main
sys.exit(main())
"""
_PASSWD = (
    "root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/nonexistent:/usr/sbin/nologin\n"
)


def main(archive: Path) -> int:
    project = tomllib.loads((PROJECT / "pyproject.toml").read_text())["project"]
    name = f"ebpf-lb:{project['version']}"
    moment = int(os.environ.get("SOURCE_DATE_EPOCH") or time.time())
    created = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(moment))
    archive.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder, "root")
        _debian(root)
        status = (root / "var/lib/dpkg/status").read_text()
        _python(root, Path(folder))
        _tidy(root)
        _try(root)
        contents = {"deb/debian": sbom.debian(status), "pypi": sbom.python(root / _LIBRARIES)}
        listed = sbom.spdx(name, created, contents)
        (root / "usr/share/sbom").mkdir(parents=True, exist_ok=True)
        (root / "usr/share/sbom/ebpf-lb.spdx.json").write_bytes(listed)
        config = {"Entrypoint": ["/usr/bin/ebpf-lb"], "Env": ["PATH=/usr/sbin:/usr/bin"]}
        tar = oci.layer(root, moment)
        size = oci.write(
            archive, tar, f"docker.io/library/{name}", os.uname().machine, config, created
        )
    archive.with_name(archive.name + ".spdx.json").write_bytes(listed)
    print(
        f"image: {archive}, {name}, {size / 1e6:.0f} MB, {archive.stat().st_size / 1e6:.0f} packed"
    )
    if size > MOST_BYTES:
        print(f"image: it is larger than {MOST_BYTES / 1e6:.0f} MB", file=sys.stderr)
        return 1
    return 0


def _debian(root: Path) -> None:
    """Packages, unpacked and not configured: there is nothing among them to configure."""
    subprocess.run(
        [
            "mmdebstrap",
            "--quiet",
            "--variant=extract",
            "--mode=root",
            "--hook-dir=/usr/share/mmdebstrap/hooks/merged-usr",
            f"--include={','.join(PACKAGES)}",
            "bookworm",
            str(root),
        ],
        check=True,
    )


def _python(root: Path, folder: Path) -> None:
    """The project as a wheel, without LEFT_OUT, and what the agent's lock names."""
    source = folder / "source"
    kept = ("ebpf_lb", "bpf", "manifests", "requirements")
    for part in kept:
        shutil.copytree(PROJECT / part, source / part, ignore=shutil.ignore_patterns("__pycache__"))
    for part in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(PROJECT / part, source)
    for part in LEFT_OUT:
        shutil.rmtree(source / "ebpf_lb" / part, ignore_errors=True)
    if not any((source / "ebpf_lb/objects").glob("*")):
        sys.exit("image: no compiled programs: run `make build`")
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "-q"]
    target = ["--target", str(root / _LIBRARIES)]
    wheels = folder / "wheels"
    build = ["wheel", "--no-deps", "--no-build-isolation", "-w", str(wheels), str(source)]
    subprocess.run([*pip, *build], check=True)
    lock = PROJECT / "requirements/agent.lock"
    wanted = ["--require-hashes", "--only-binary", ":all:", "-r", str(lock)]
    subprocess.run([*pip, "install", "--no-compile", *target, *wanted], check=True)
    (wheel,) = wheels.iterdir()
    last = ["install", "--no-compile", "--no-deps", "--upgrade", *target, str(wheel)]
    subprocess.run([*pip, *last], check=True)
    launcher = root / "usr/bin/ebpf-lb"
    launcher.write_text(_LAUNCHER)
    launcher.chmod(0o755)


def _tidy(root: Path) -> None:
    for path in _SUPERFLUOUS:
        shutil.rmtree(root / path, ignore_errors=True)
    (root / "etc/passwd").write_text(_PASSWD)
    (root / "etc/group").write_text("root:x:0:\nnogroup:x:65534:\n")
    for path in ("proc", "sys", "dev", "run", "tmp", "etc/ebpf-lb"):
        (root / path).mkdir(parents=True, exist_ok=True)
    (root / "tmp").chmod(0o1777)


def _try(root: Path) -> None:
    """What is started there runs, and compiles its modules, so that nobody waits for that at a
    start; and no compiler came along."""
    inside = ["chroot", str(root)]
    compiling = [PYTHON, "-m", "compileall", "-q", "-x", _NOT_COMPILED]
    compiling += [f"/{_LIBRARIES}", "/usr/lib/python3.11"]
    subprocess.run([*inside, *compiling], check=True)
    subprocess.run([*inside, "/usr/bin/ebpf-lb", "--version"], check=True)
    needed = "import ebpf_lb.agent.run, ebpf_lb.kube.library, ebpf_lb.datapath.libbpf.object as o"
    code = f"import sys; sys.path.insert(0, '/{_LIBRARIES}'); {needed}; o.library()"
    subprocess.run([*inside, PYTHON, "-c", code], check=True)
    found = [
        one
        for name in ("clang*", "gcc*", "libLLVM*", "libbcc*", "pip*")
        for one in root.glob(f"usr/*/{name}")
    ]
    if found:
        sys.exit(f"image: tools of development came along: {found}")


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))

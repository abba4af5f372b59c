"""What a lab that is down must not leave behind, found without asking the lab's own code."""

import os
from pathlib import Path

FOLDERS = ("/run/netns", "/sys/fs/bpf", "/run/ebpf-lb/labs", "/var/run/netns", "/run")


def leftovers(lab: str) -> list[str]:
    """Namespaces, pins, cgroups, files and processes that carry the lab's name."""
    return sorted({*_entries(lab), *_cgroups(lab), *_processes(lab)})


def _entries(lab: str) -> list[str]:
    return [
        os.fspath(path.resolve())
        for folder in map(Path, FOLDERS)
        if folder.is_dir()
        for path in folder.iterdir()
        if _carries(path.name, lab)
    ]


def _cgroups(lab: str) -> list[str]:
    mounts = [line.split() for line in Path("/proc/mounts").read_text().splitlines()]
    return [
        os.fspath(path)
        for mount in mounts
        if mount[2] in ("cgroup", "cgroup2")
        for path in Path(mount[1]).iterdir()
        if path.is_dir() and _carries(path.name, lab)
    ]


def _processes(lab: str) -> list[str]:
    found = []
    for folder in Path("/proc").iterdir():
        if not folder.name.isdigit() or int(folder.name) == os.getpid():
            continue
        try:
            words = (folder / "cmdline").read_bytes().decode(errors="replace").split("\0")
            groups = (folder / "cgroup").read_text()
            ended = (folder / "stat").read_text().rpartition(")")[2].split()[0] in "ZX"
        except (FileNotFoundError, ProcessLookupError):
            continue
        if ended:  # only its parent's entry is left: it holds nothing, and goes when that asks
            continue
        if _carries(groups.replace("/", "-"), lab) or any(_carries(w, lab) for w in words):
            found.append(f"process {folder.name}: {' '.join(words).strip()}")
    return found


def _carries(text: str, lab: str) -> bool:
    """Whether the name is one of the parts: t12 is not in t123."""
    parts = text.replace("/", "-").replace(".", "-").replace("\n", "-").split("-")
    return lab in parts

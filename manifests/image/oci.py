"""An image as an OCI archive: one layer, its configuration, and what points to them."""

import gzip
import hashlib
import io
import json
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

# what a machine's kernel calls itself, and what images do
ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}

_LAYER = "application/vnd.oci.image.layer.v1.tar+gzip"
_CONFIG = "application/vnd.oci.image.config.v1+json"
_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
_INDEX = "application/vnd.oci.image.index.v1+json"


def layer(root: Path, moment: int) -> bytes:
    """A folder as a tar: everything root's and of one moment, so that the same is made of the same.
    Device files and sockets are left out: whoever runs a container makes its own."""
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for path in _below(root):
            info = tar.gettarinfo(path, str(path.relative_to(root)))
            if info is None or not (info.isfile() or info.isdir() or info.issym() or info.islnk()):
                continue
            info.uid = info.gid = 0
            info.uname = info.gname = ""
            info.mtime = moment
            if info.isfile():
                with path.open("rb") as content:
                    tar.addfile(info, content)
            else:
                tar.addfile(info)
    return made.getvalue()


def write(
    archive: Path, tar: bytes, name: str, machine: str, config: dict[str, Any], created: str
) -> int:
    """Writes the archive, and returns the bytes of the unpacked layer. `name`: with its tag."""
    packed = gzip.compress(tar, 6, mtime=0)
    described = {
        "created": created,
        "architecture": ARCHITECTURES[machine],
        "os": "linux",
        "config": config,
        "rootfs": {"type": "layers", "diff_ids": [_digest(tar)]},
        "history": [{"created": created, "created_by": "make image"}],
    }
    blobs: dict[str, bytes] = {}

    def keep(data: bytes, kind: str) -> dict[str, Any]:
        digest = _digest(data)
        blobs[digest] = data
        return {"mediaType": kind, "digest": digest, "size": len(data)}

    manifest = {
        "schemaVersion": 2,
        "mediaType": _MANIFEST,
        "config": keep(_json(described), _CONFIG),
        "layers": [keep(packed, _LAYER)],
    }
    tag = name.rpartition(":")[2]
    named = {"io.containerd.image.name": name, "org.opencontainers.image.ref.name": tag}
    index = {
        "schemaVersion": 2,
        "mediaType": _INDEX,
        "manifests": [keep(_json(manifest), _MANIFEST) | {"annotations": named}],
    }
    unfinished = archive.with_suffix(".new")
    with tarfile.open(unfinished, "w") as out:
        _add(out, "oci-layout", _json({"imageLayoutVersion": "1.0.0"}))
        _add(out, "index.json", _json(index))
        for digest, data in blobs.items():
            _add(out, f"blobs/{digest.replace(':', '/')}", data)
    unfinished.replace(archive)
    return len(tar)


def _below(root: Path) -> Iterator[Path]:
    for path in sorted(root.iterdir()):
        yield path
        if path.is_dir() and not path.is_symlink():
            yield from _below(path)


def _add(out: tarfile.TarFile, name: str, data: bytes) -> None:
    info = tarfile.TarInfo(name)
    info.size = len(data)
    out.addfile(info, io.BytesIO(data))


def _digest(data: bytes) -> str:
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


def _json(content: Any) -> bytes:
    return json.dumps(content, sort_keys=True).encode()

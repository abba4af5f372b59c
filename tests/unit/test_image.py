"""The image's archive: what engines read of it, without any."""

import gzip
import hashlib
import importlib.util
import io
import json
import sys
import tarfile
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

FOLDER = Path(__file__).parents[2] / "manifests/image"
MOMENT = 1_700_000_000


def load(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"image_{name}", FOLDER / f"{name}.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def root(tmp_path: Path) -> Path:
    made = tmp_path / "root"
    (made / "usr/bin").mkdir(parents=True)
    (made / "usr/bin/tool").write_text("#!/bin/sh\n")
    (made / "usr/bin/tool").chmod(0o755)
    (made / "bin").symlink_to("usr/bin")
    (made / "tmp").mkdir()
    (made / "tmp").chmod(0o1777)
    return made


def blob(archive: tarfile.TarFile, described: Any) -> bytes:
    """What a descriptor points to, as it says."""
    file = archive.extractfile(f"blobs/{described['digest'].replace(':', '/')}")
    assert file is not None
    data = file.read()
    assert len(data) == described["size"]
    assert f"sha256:{hashlib.sha256(data).hexdigest()}" == described["digest"]
    return data


def test_an_archive_is_what_oci_says(root: Path, tmp_path: Path) -> None:
    oci = load("oci")
    path = tmp_path / "image.tar"
    config = {"Entrypoint": ["/usr/bin/tool"]}
    tar = oci.layer(root, MOMENT)
    oci.write(path, tar, "docker.io/library/ebpf-lb:9", "x86_64", config, "2023-11-14T22:13:20Z")
    with tarfile.open(path) as archive:
        layout, index = (
            json.loads((archive.extractfile(name) or io.BytesIO()).read())
            for name in ("oci-layout", "index.json")
        )
        assert layout == {"imageLayoutVersion": "1.0.0"}
        (described,) = index["manifests"]
        assert described["annotations"]["io.containerd.image.name"].endswith("/ebpf-lb:9")
        assert described["annotations"]["org.opencontainers.image.ref.name"] == "9"
        manifest = json.loads(blob(archive, described))
        configured = json.loads(blob(archive, manifest["config"]))
        unpacked = gzip.decompress(blob(archive, manifest["layers"][0]))
    assert configured["architecture"] == "amd64" and configured["config"] == config
    assert configured["rootfs"]["diff_ids"] == [f"sha256:{hashlib.sha256(unpacked).hexdigest()}"]
    with tarfile.open(fileobj=io.BytesIO(unpacked)) as layer:
        found = {one.name: one for one in layer}
    assert found["bin"].issym() and found["bin"].linkname == "usr/bin"
    assert found["usr/bin/tool"].mode == 0o755 and found["tmp"].mode == 0o1777
    assert {(one.uid, one.gid, one.mtime) for one in found.values()} == {(0, 0, MOMENT)}


def test_the_same_is_made_of_the_same(root: Path) -> None:
    oci = load("oci")
    before = oci.layer(root, MOMENT)
    (root / "usr/bin/tool").touch()
    assert oci.layer(root, MOMENT) == before


def test_what_is_in_it_is_listed(tmp_path: Path) -> None:
    sbom = load("sbom")
    status = "Package: libbpf1\nStatus: x\nVersion: 1:1.1.0-1\n\nPackage: python3\nVersion: 3.11\n"
    info = tmp_path / "click-8.1.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: click\nVersion: 8.1\n")
    packages = {"deb/debian": sbom.debian(status), "pypi": sbom.python(tmp_path)}
    found = json.loads(sbom.spdx("ebpf-lb:9", "2023-11-14T22:13:20Z", packages))
    assert found["spdxVersion"] == "SPDX-2.3"
    assert [one["externalRefs"][0]["referenceLocator"] for one in found["packages"]] == [
        "pkg:deb/debian/libbpf1@1:1.1.0-1",
        "pkg:deb/debian/python3@3.11",
        "pkg:pypi/click@8.1",
    ]
    assert len({one["SPDXID"] for one in found["packages"]}) == 3

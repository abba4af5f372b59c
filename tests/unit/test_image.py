"""The image's archive: what engines read of it, without any."""

import ast
import gzip
import hashlib
import importlib.util
import io
import json
import sys
import tarfile
import tomllib
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


def parts_left_out() -> tuple[str, ...]:
    """LEFT_OUT of build.py, which only runs as a script."""
    for node in ast.parse((FOLDER / "build.py").read_text()).body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "LEFT_OUT":
            found: tuple[str, ...] = ast.literal_eval(node.value)
            return found
    raise AssertionError("build.py says nothing of what is left out")


def test_the_lab_stays_out() -> None:
    """What no node needs is left out, and no module of the image needs it at its import. (A drawing
    of `explain` does need it, and says so when it is asked for.)"""
    package = FOLDER.parents[1] / "ebpf_lb"
    left_out = parts_left_out()
    gone = [f"ebpf_lb.{part.replace('/', '.')}." for part in left_out]
    assert all((package / part).is_dir() for part in left_out)
    found = []
    for path in sorted(package.rglob("*.py")):
        if any(path.is_relative_to(package / part) for part in left_out):
            continue
        for node in ast.parse(path.read_text()).body:  # not what stands in functions
            named = [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            named += [one.name for one in node.names] if isinstance(node, ast.Import) else []
            found += [(path.name, name) for name in named if f"{name}.".startswith(tuple(gone))]
    assert found == []


def test_rooms_above_the_agent_are_left_out() -> None:
    """The layers of pyproject.toml say which these are."""
    project = tomllib.loads((FOLDER.parents[1] / "pyproject.toml").read_text())
    [layers] = [
        one["layers"]
        for one in project["tool"]["importlinter"]["contracts"]
        if one["name"].startswith("Layers")
    ]
    above = layers[: next(i for i, layer in enumerate(layers) if "ebpf_lb.agent" in layer)]
    rooms = {room.removeprefix("ebpf_lb.") for layer in above for room in layer.split(" | ")}
    assert rooms - {"cli"} <= set(parts_left_out())

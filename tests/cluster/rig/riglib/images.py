"""Container images made here, all in one archive for `ctr images import`.

agnhost: the upstream program and the tools that the tests call in its pods, taken from this
machine's packages: busybox for most, and real programs where Debian's static busybox would not do
(its sh prefers its own nc to the one beside it, and its `wget -q` crashes)."""

import functools
import hashlib
import io
import json
import re
import shutil
import tarfile
import tempfile
from pathlib import Path

from . import conf
from .proc import run

TOOLS = [
    "bash",
    "curl",
    "nc.openbsd",
    "ss",
    "ip",
    "dig",
    "host",
    "nslookup",
    "conntrack",
    "wget",
    "getent",
]
DNS = f"{conf.PREFIX}.test/coredns:rig"


def e2e_images(name):
    """The full names, with all versions, of the images of that name that the e2e tests want."""
    listed = run(conf.BIN / "e2e.test", "--list-images")
    found = [
        image
        for image in re.findall(rf"^\S+/{name}:\S+$", listed, re.MULTILINE)
        if "authenticated" not in image
    ]
    if not found:
        raise SystemExit(f"rig: the e2e tests name no image {name}")
    return sorted(found)


def pause_image():
    return e2e_images("pause")[0]


class Layer:
    """A root file system as a tar."""

    def __init__(self):
        self.buffer = io.BytesIO()
        self.tar = tarfile.TarFile(fileobj=self.buffer, mode="w")
        self.names = set()

    def _add(self, name, mode, kind=tarfile.REGTYPE, data=b"", link=""):
        name = name.strip("/")
        parent = str(Path(name).parent)
        if parent != "." and parent not in self.names:
            self.directory(parent)
        if name in self.names:
            return
        info = tarfile.TarInfo(name)
        info.mode, info.type, info.linkname, info.size = mode, kind, link, len(data)
        self.tar.addfile(info, io.BytesIO(data) if data else None)
        self.names.add(name)

    def directory(self, name, mode=0o755):
        self._add(name, mode, tarfile.DIRTYPE)

    def link(self, name, target):
        self._add(name, 0o777, tarfile.SYMTYPE, link=target)

    def file(self, name, data, mode=0o644):
        self._add(name, mode, data=data)

    def program(self, source, name):
        """A program and the libraries that it is linked with."""
        self.file(name, Path(source).resolve().read_bytes(), 0o755)
        for line in run("ldd", source, check=False).splitlines():
            library = re.search(r"(/\S+) \(0x", line)
            if library:
                path = library[1] if library[1].startswith("/usr") else "/usr" + library[1]
                self.file(path, Path(library[1]).resolve().read_bytes(), 0o755)

    def bytes(self):
        self.tar.close()
        return self.buffer.getvalue()


def skeleton():
    layer = Layer()
    for name, target in [
        ("bin", "usr/bin"),
        ("sbin", "usr/bin"),
        ("usr/sbin", "bin"),
        ("lib", "usr/lib"),
        ("lib64", "usr/lib64"),
    ]:
        layer.link(name, target)
    layer.directory("tmp", 0o1777)
    layer.file(
        "etc/passwd",
        b"root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534::/:/bin/false\n"
        b"user-defined-in-image:x:1000:1000::/:/bin/sh\n",
    )
    layer.file(
        "etc/group",
        b"root:x:0:\nnogroup:x:65534:\nuser-defined-in-image:x:1000:\n"
        b"group-defined-in-image:x:50000:user-defined-in-image\n",
    )
    layer.file("etc/wgetrc", b"tries = 1\n")
    layer.file("etc/nsswitch.conf", b"passwd: files\ngroup: files\nhosts: files dns\n")
    return layer


def localhost_certificate():
    """For agnhost's porter, which serves https with what lies in its working directory."""
    with tempfile.TemporaryDirectory() as folder:
        certificate, key = f"{folder}/crt", f"{folder}/key"
        run(
            "openssl",
            "req",
            "-x509",
            "-days",
            "3650",
            "-newkey",
            "rsa:2048",
            "-nodes",
            "-subj",
            "/CN=localhost",
            "-addext",
            "subjectAltName=DNS:localhost,IP:127.0.0.1",
            "-keyout",
            key,
            "-out",
            certificate,
        )
        return Path(certificate).read_bytes(), Path(key).read_bytes()


def agnhost():
    layer = skeleton()
    for program in ("agnhost", "coredns"):
        layer.file(program, (conf.BIN / program).read_bytes(), 0o755)
    layer.link("agnhost-2", "agnhost")
    layer.directory("uploads")
    for name, data in zip(
        ("localhost.crt", "localhost.key"), localhost_certificate(), strict=False
    ):
        layer.file(name, data)
    layer.directory("root", 0o700)
    for tool in TOOLS:
        source = shutil.which(tool)
        if source is None:
            raise SystemExit(f"rig: {tool} is missing, run `make debian`")
        layer.program(source, f"usr/bin/{tool}")
    layer.link("usr/bin/nc", "nc.openbsd")
    layer.link("usr/bin/sh", "bash")
    return busybox(layer)


def busybox(layer):
    program = shutil.which("busybox")
    layer.file("usr/bin/busybox", Path(program).read_bytes(), 0o755)
    for applet in run(program, "--list").split():
        layer.link(f"usr/bin/{Path(applet).name}", "busybox")
    return layer


def single(program):
    layer = skeleton()
    layer.file(program, (conf.BIN / program).read_bytes(), 0o755)
    return layer


def kubeplane():
    layer = skeleton()
    layer.file("usr/bin/kubeplane", (conf.BIN / "kubeplane").read_bytes(), 0o755)
    for program in conf.BIN.iterdir():
        if program.is_symlink():
            layer.link(f"usr/bin/{program.name}", "kubeplane")
    return layer


def images():
    """(names, layer's name, entry point, command) of each image.

    Where a test wants only a server that stays up (nginx), or glibc with dig and getent
    (glibc-dns-testing), or sleep and cat as root on a node (distroless-iptables), agnhost's files
    do it: they are Debian's with glibc."""
    yield e2e_images("pause"), "pause", ["/pause"], []
    yield e2e_images("agnhost"), "agnhost", ["/agnhost"], ["pause"]
    yield e2e_images("glibc-dns-testing"), "agnhost", ["/bin/sh"], []
    yield e2e_images("distroless-iptables"), "agnhost", ["/bin/sh"], []
    yield e2e_images("nginx"), "agnhost", ["/agnhost"], ["test-webserver"]
    yield e2e_images("busybox"), "busybox", ["/bin/sh"], []
    yield (
        e2e_images("regression-issue-74839"),
        "regression-issue-74839",
        ["/regression-issue-74839"],
        [],
    )
    yield [DNS], "coredns", ["/coredns"], []


LAYERS = {
    "agnhost": agnhost,
    "busybox": lambda: busybox(skeleton()),
    "kubeplane": kubeplane,
}


def build():
    """Makes the archive of all images unless it is newer than the programs; returns its path."""
    archive = conf.IMAGES / "images.tar"
    newest = max(path.stat().st_mtime for path in [Path(__file__), *conf.BIN.iterdir()])
    if archive.exists() and archive.stat().st_mtime >= newest:
        return archive
    conf.IMAGES.mkdir(parents=True, exist_ok=True)
    write(archive, images())
    return archive


def write(archive, wanted):
    """An archive of some images, each as in images()."""
    new, manifest, digests = archive.with_suffix(".new"), [], {}
    with tarfile.open(new, "w") as tar:

        def add(name, data):
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))

        for names, layer, entrypoint, command in wanted:
            if layer not in digests:
                make = LAYERS.get(layer, functools.partial(single, layer))
                data = make().bytes()
                digests[layer] = "sha256:" + hashlib.sha256(data).hexdigest()
                add(f"{layer}.tar", data)
            config = json.dumps(
                {
                    "architecture": "amd64",
                    "os": "linux",
                    "config": {"Env": ["PATH=/usr/bin"], "Entrypoint": entrypoint, "Cmd": command},
                    "rootfs": {"type": "layers", "diff_ids": [digests[layer]]},
                    "history": [{"created_by": "kube-rig"}],
                }
            ).encode()
            name = hashlib.sha256(config).hexdigest() + ".json"
            if name not in [entry["Config"] for entry in manifest]:
                add(name, config)
            manifest.append({"Config": name, "RepoTags": names, "Layers": [f"{layer}.tar"]})
        add("manifest.json", json.dumps(manifest).encode())
    new.replace(archive)

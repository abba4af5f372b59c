"""Programs that were compiled when ebpf-lb was built: no node needs a compiler.

    ebpf_lb/objects/UNIT-KEY      a unit's images; KEY names the sources and the kind of machine

`make build` makes them, and a package has them inside. They are used only with the very sources
that they were made of, which lie beside them: where these were changed, as developers do, programs
come from the cache of compiled ones or from the compiler.
"""

import logging
import os
from pathlib import Path

from ebpf_lb.datapath.loader import archive, source
from ebpf_lb.datapath.loader.archive import Images
from ebpf_lb.datapath.loader.programs import Unit

FOLDER = Path(__file__).resolve().parents[2] / "objects"

_log = logging.getLogger(__name__)


def find(unit: Unit, sources: Path, folder: Path | None = None) -> Images | None:
    """What was made of these sources; None if there is nothing, or it is damaged."""
    path = _path(unit, sources, folder)
    try:
        return archive.unpack(path.read_bytes())
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        _log.warning("%s is not used: %s", path, error)
        return None


def keep(unit: Unit, sources: Path, images: Images, folder: Path | None = None) -> Path:
    """In the place of what earlier sources gave."""
    folder = folder or FOLDER
    path = _path(unit, sources, folder)
    folder.mkdir(exist_ok=True)
    unfinished = path.with_suffix(f".{os.getpid()}")
    unfinished.write_bytes(archive.pack(images))
    unfinished.rename(path)
    for other in folder.glob(f"{unit.name}-{os.uname().machine}-*"):
        if other != path:
            other.unlink(missing_ok=True)
    return path


def _path(unit: Unit, sources: Path, folder: Path | None) -> Path:
    return (folder or FOLDER) / f"{unit.name}-{source.object_key(unit, sources)}"

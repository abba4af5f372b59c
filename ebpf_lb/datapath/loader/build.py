"""Compiles everything that ships: `python -m ebpf_lb.datapath.loader.build`, by `make build`.

Needs root, for the compiler's library asks the kernel for maps. What was made of these sources
already stays as it is.
"""

import functools
import os
import shutil
import sys
import time
from pathlib import Path

from ebpf_lb.datapath import layout
from ebpf_lb.datapath.loader import cache, objects, source
from ebpf_lb.datapath.loader.compilation import compile_images
from ebpf_lb.datapath.loader.programs import UNITS
from ebpf_lb.datapath.pins import BPFFS, Pins
from ebpf_lb.errors import UserError


def build(bpffs: Path, sources: Path, folder: Path | None = None) -> list[str]:
    """Makes what is missing, and returns the names of those units. UserError."""
    made = []
    for unit in UNITS:
        if objects.find(unit, sources, folder) is not None:
            continue
        started = time.monotonic()
        pins = Pins(bpffs / f"ebpf-lb-build-{os.getpid()}")
        try:
            pins.builds.mkdir(parents=True, exist_ok=True)  # of one that was killed
            images, _ = cache.images(
                source.cache_key(unit, sources),
                functools.partial(compile_images, pins, unit, sources),
            )
        except OSError as error:
            raise UserError(
                f"The programs cannot be compiled: {error}. It takes root, and a bpffs at {bpffs}."
            ) from error
        finally:
            shutil.rmtree(pins.root, ignore_errors=True)
        path = objects.keep(unit, sources, images, folder)
        print(f"build: {path.name} in {time.monotonic() - started:.1f} s", flush=True)
        made.append(unit.name)
    return made


def main() -> int:
    try:
        build(BPFFS, layout.sources())
    except UserError as error:
        print(f"build: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())

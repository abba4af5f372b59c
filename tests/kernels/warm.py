"""Fills the loader's cache for another kernel than the one that runs. See warm.sh."""

import functools
import os
import sys
import time
from pathlib import Path
from types import SimpleNamespace

from ebpf_lb.datapath import clock, layout
from ebpf_lb.datapath.loader import cache, programs, source
from ebpf_lb.datapath.loader.compilation import compile_images
from ebpf_lb.datapath.pins import Pins
from ebpf_lb.datapath.settings import Settings

UNITS = {
    "stack": programs.STACK,
    "xdp": programs.XDP,
    "generic": programs.units(Settings(xdp=True, xdp_generic=True))[-1],
    "l3": programs.LAYER_3,
}


def pretend(release: str, hertz: int) -> None:
    clock.jiffies_per_second = lambda: hertz
    fields = ("sysname", "nodename", "release", "version", "machine")
    real = dict(zip(fields, os.uname(), strict=True))
    os.uname = lambda: SimpleNamespace(**{**real, "release": release})


def main() -> None:
    release, hertz, *wanted = sys.argv[1:]
    pretend(release, int(hertz))
    pins = Pins(Path("/sys/fs/bpf/warm"))
    pins.builds.mkdir(parents=True)
    for one in wanted:
        name, _, pairs = one.partition(":")
        changes = dict(pair.split("=") for pair in pairs.split(",") if pair)
        settings = Settings(**{key: int(value) for key, value in changes.items()})
        unit = UNITS[name]
        started = time.monotonic()
        _, compiled = cache.images(
            source.cache_key(unit, settings),
            functools.partial(compile_images, pins, unit, settings, layout.sources()),
        )
        how = f"compiled in {time.monotonic() - started:.1f} s" if compiled else "was there"
        print(f"{release} {one} {how}", flush=True)


if __name__ == "__main__":
    main()

"""Loads every program of every unit, for both families, and says what that took.

    run.sh KERNEL python -m tests.kernels.checks.load [default|native|generic|small...]

One line a program: its instructions, and how many the verifier went through. Where one is refused
the others are still tried; the verifier's whole log goes into $OUT/refused/. What is over the
budget (tests/datapath/budget.py) is said and fails, too.
"""

import os
import shutil
import sys
import time
from pathlib import Path

from ebpf_lb.datapath.loader import LoaderError, ensure_layer_3, ensure_loaded, loading
from ebpf_lb.datapath.pins import Pins
from ebpf_lb.datapath.settings import Settings
from tests.datapath import budget

BPFFS = Path("/sys/fs/bpf/load-check")
LOGS = Path(os.environ.get("OUT", "/tmp")) / "refused"
BUILDS = {
    "default": Settings(),
    "native": Settings(xdp=True),
    "past the stack": Settings(host_routing=True),
    "generic": Settings(xdp=True, xdp_generic=True),
    "small": Settings(flows=1024, xdp=True),  # as for most packet tests
}
STAND_IN = bytes.fromhex("b7000000000000009500000000000000")  # r0 = 0; exit

refused: dict[tuple[str, str], str] = {}  # of the build that is being loaded
_load_one = loading._load


def _load_or_note(job, code):
    """A refusal is noted, and a program of two instructions takes the refused one's place."""
    try:
        return _load_one(job, code)
    except loading.RefusedError as error:
        refused[job.family.directory, job.name] = f"{error.reason}, {len(code) // 8} instructions"
        LOGS.mkdir(parents=True, exist_ok=True)
        (LOGS / f"{job.family.directory}-{job.name}.log").write_text(error.log)
        return _load_one(job, STAND_IN)


def report(figures: dict[tuple[str, str], budget.Figure]) -> list[str]:
    """Prints a line a program; what is too much."""
    total = 0
    for (family, program), figure in sorted(figures.items()):
        name = f"  {family} {program:18}"
        if why := refused.get((family, program)):
            print(f"{name} REFUSED: {why}")
            continue
        total += figure.verified
        print(f"{name} {figure.instructions:6} instructions {figure.verified:8} verified")
    print(f"  together {total:,} verified instructions", flush=True)
    verified = {key: one.verified for key, one in figures.items() if key not in refused}
    return budget.over(verified, budget.OTHER_KERNEL)


def main(wanted: list[str]) -> int:
    kernel = os.uname().release
    wrong = 0
    loading._load = _load_or_note
    for name in wanted or BUILDS:
        settings = BUILDS[name]
        refused.clear()
        shutil.rmtree(BPFFS, ignore_errors=True)
        times = {}
        try:
            started = time.monotonic()
            loaded = ensure_loaded(BPFFS, settings)
            times["loaded"] = time.monotonic() - started
            started = time.monotonic()
            layer_3 = ensure_layer_3(loaded.build, settings)
            times["layer 3"] = time.monotonic() - started
        except LoaderError as error:
            print(f"{kernel}, {name}: {error}")
            wrong += 1
            continue
        compiled = loaded.compiled or layer_3
        took = ", ".join(f"{what} in {seconds:.1f} s" for what, seconds in times.items())
        print(f"{kernel}, {name}: {took}{' (some of it compiled)' if compiled else ''}")
        too_much = report(budget.figures(Pins(BPFFS).current))
        for sentence in too_much:
            print(f"  OVER BUDGET: {sentence}", flush=True)
        wrong += len(refused) + len(too_much)
    shutil.rmtree(BPFFS, ignore_errors=True)
    print(f"{kernel}: {wrong} refused or over budget")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

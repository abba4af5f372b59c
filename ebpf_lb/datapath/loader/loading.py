"""The one way into the kernel: images are filled in with this node's maps and constants, verified
and pinned.

Programs of all units and both families are verified side by side: the system call waits without
the GIL.
"""

import ctypes
import errno
import os
import threading
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from ebpf_lb.datapath import layout
from ebpf_lb.datapath.libbpf import Map, Program
from ebpf_lb.datapath.libbpf.object import failure, library
from ebpf_lb.datapath.loader.image import Image, ProgramImage
from ebpf_lb.datapath.loader.maps import pinned_at
from ebpf_lb.datapath.loader.programs import Kind, Unit
from ebpf_lb.datapath.pins import Build
from ebpf_lb.model.values import Family

# as in the sources' first lines; the kernel lets programs under it use every helper
_LICENSE = b"Dual BSD/GPL"
_INSTRUCTION_BYTES = 8
_LOG_BYTES = 1 << 24  # the whole log, on kernels that keep its beginning when it is cut
_BRIEF = 1  # the log's lowest level


class RefusedError(Exception):
    """The verifier's refusal of one program. `log`: what it wrote."""

    def __init__(self, unit: Unit, family: Family, program: str, error: int, log: str) -> None:
        self.unit = unit
        self.family = family
        self.program = program
        self.reason = os.strerror(error)
        self.log = log
        super().__init__(
            f"the kernel refuses the {family.directory} program {program}: {self.reason}"
        )


@dataclass(frozen=True, slots=True)
class _Job:
    unit: Unit
    family: Family
    name: str
    image: ProgramImage

    @property
    def kind(self) -> Kind:
        return self.unit.programs[self.family][self.name]


def load(
    images: Mapping[Unit, Mapping[Family, Image]],
    constants: Mapping[Family, Mapping[str, int]],
    functions: Mapping[str, int],
    new: Build,
    sources: Path | None = None,
    idle: threading.Event | None = None,
) -> None:
    """Loads and pins all programs of these units in a build, whose maps are pinned already.
    constants, functions: what images are filled in with besides. idle: until it is set, this
    process has other things to do, for which a processor is left.

    RefusedError: the verifier's reasons. OSError: something else.
    """
    jobs = [
        _Job(unit, family, name, images[unit][family][name])
        for unit in images
        for family in Family
        for name in unit.programs[family]
    ]
    jobs.sort(key=lambda job: -len(job.image.code))  # so that none is left alone at the end
    with ExitStack() as opened:
        maps = {
            (unit, family): {
                spec.name: opened.enter_context(Map.open(pinned_at(spec, family, new, unit)))
                for spec in layout.load(family, sources).maps.values()
            }
            for unit in images
            for family in Family
        }

        loaded = _verify(jobs, maps, constants, functions, opened, idle)
        for (unit, family), those in maps.items():
            for index, (whose, name) in unit.calls(family).items():
                descriptor = loaded[unit, whose, name].fd
                those["calls"].update(index.to_bytes(4, "little"), descriptor.to_bytes(4, "little"))
        # last, so that whoever finds all of a unit pinned finds it whole
        for (_, family, name), program in loaded.items():
            path = new.programs(family) / name
            path.unlink(missing_ok=True)  # of an attempt that was interrupted
            program.pin(path)


def load_apart(
    unit: Unit,
    family: Family,
    images: Mapping[str, ProgramImage],
    maps: Mapping[str, Map],
    constants: Mapping[str, int],
    functions: Mapping[str, int],
) -> dict[str, Program]:
    """Loads programs on these very maps, `calls` among them, and pins nothing: they are gone when
    they are closed. RefusedError, OSError."""
    jobs = [_Job(unit, family, name, image) for name, image in images.items()]
    jobs.sort(key=lambda job: -len(job.image.code))
    with ExitStack() as opened:
        found = {
            name: program
            for (_, _, name), program in _verify(
                jobs, {(unit, family): maps}, {family: constants}, functions, opened
            ).items()
        }
        for index, (whose, name) in unit.calls(family).items():
            if whose is family and name in found:
                maps["calls"].update(
                    index.to_bytes(4, "little"), found[name].fd.to_bytes(4, "little")
                )
        opened.pop_all()
    return found


def _verify(
    jobs: Sequence[_Job],
    maps: Mapping[tuple[Unit, Family], Mapping[str, Map]],
    constants: Mapping[Family, Mapping[str, int]],
    functions: Mapping[str, int],
    opened: ExitStack,
    idle: threading.Event | None = None,
) -> dict[tuple[Unit, Family, str], Program]:
    """Side by side; what is loaded is closed with `opened`."""
    processors = os.cpu_count() or 1
    places = threading.Semaphore(processors)
    if idle is not None and processors > 1:
        places.acquire()
        threading.Thread(target=_release, args=(places, idle), daemon=True).start()

    def verified(job: _Job) -> Program:
        descriptors = {name: one.fd for name, one in maps[job.unit, job.family].items()}
        with places:
            return _load(job, job.image.fill_in(descriptors, constants[job.family], functions))

    loaded: dict[tuple[Unit, Family, str], Program] = {}
    with ThreadPoolExecutor(processors) as threads:
        waiting = [(job, threads.submit(verified, job)) for job in jobs]
        try:
            for job, future in waiting:
                loaded[job.unit, job.family, job.name] = opened.enter_context(future.result())
        except BaseException:
            threads.shutdown(cancel_futures=True)
            raise
    return loaded


def _release(places: threading.Semaphore, idle: threading.Event) -> None:
    idle.wait()
    places.release()


class _LoadOptions(ctypes.Structure):
    """struct bpf_prog_load_opts of libbpf 1.1, up to its last field."""

    _fields_ = (
        ("size", ctypes.c_size_t),
        ("attempts", ctypes.c_int),
        ("expected_attach_type", ctypes.c_uint32),
        ("prog_btf_fd", ctypes.c_uint32),
        ("prog_flags", ctypes.c_uint32),
        ("prog_ifindex", ctypes.c_uint32),
        ("kern_version", ctypes.c_uint32),
        ("attach_btf_id", ctypes.c_uint32),
        ("attach_prog_fd", ctypes.c_uint32),
        ("attach_btf_obj_fd", ctypes.c_uint32),
        ("fd_array", ctypes.c_void_p),
        ("func_info", ctypes.c_void_p),
        ("func_info_cnt", ctypes.c_uint32),
        ("func_info_rec_size", ctypes.c_uint32),
        ("line_info", ctypes.c_void_p),
        ("line_info_cnt", ctypes.c_uint32),
        ("line_info_rec_size", ctypes.c_uint32),
        ("log_level", ctypes.c_uint32),
        ("log_size", ctypes.c_uint32),
        ("log_buf", ctypes.c_void_p),
    )


def _load(job: _Job, code: bytes) -> Program:
    options = _LoadOptions(
        size=ctypes.sizeof(_LoadOptions),
        expected_attach_type=job.kind.attach_type,
        prog_flags=job.kind.flags,
    )
    result = _call(job, code, options)
    if result >= 0:
        return Program(result, job.name)
    # once more, with reasons: a log takes time, and nearly every program passes
    log = ctypes.create_string_buffer(_LOG_BYTES)
    options.log_level, options.log_size = _BRIEF, _LOG_BYTES
    options.log_buf = ctypes.addressof(log)
    again = _call(job, code, options)
    if again >= 0:
        return Program(again, job.name)
    if -result in (errno.EPERM, errno.ENOMEM) or not log.value:
        raise failure(-result, f"loading the program {job.name}")
    raise RefusedError(job.unit, job.family, job.name, -result, log.value.decode(errors="replace"))


def _call(job: _Job, code: bytes, options: _LoadOptions) -> int:
    result: int = library().bpf_prog_load(
        ctypes.c_int(job.kind.program_type),
        ctypes.c_char_p(job.name[:15].encode()),
        ctypes.c_char_p(_LICENSE),
        ctypes.c_char_p(code),
        ctypes.c_size_t(len(code) // _INSTRUCTION_BYTES),
        ctypes.byref(options),
    )
    return result

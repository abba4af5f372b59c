"""Programs: what they are, and running them on one packet."""

import ctypes
from ctypes import c_char, c_char_p, c_int, c_size_t, c_uint8, c_uint32, c_uint64, c_void_p
from dataclasses import dataclass
from typing import Self

from ebpf_lb.datapath.libbpf.object import BpfObject, checked, library


@dataclass(frozen=True, slots=True)
class ProgramInfo:
    """`type` is the kernel's number (3: scheduler classifier); `tag` a hash of its instructions."""

    type: int
    id: int
    name: str
    tag: str
    instructions: int
    verified_instructions: int


@dataclass(frozen=True, slots=True)
class TestRun:
    """What BPF_PROG_TEST_RUN gave; `duration_ns` is the mean of one repetition."""

    __test__ = False  # no test class, whatever pytest thinks of its name

    retval: int
    data_out: bytes
    ctx_out: bytes
    duration_ns: int


class _Info(ctypes.Structure):
    _fields_ = (
        ("type", c_uint32),
        ("id", c_uint32),
        ("tag", c_uint8 * 8),
        ("jited_length", c_uint32),
        ("translated_length", c_uint32),
        ("pointers_and_times", c_uint64 * 3),
        ("created_by_uid", c_uint32),
        ("map_count", c_uint32),
        ("map_ids", c_uint64),
        ("name", c_char * 16),
        ("more", c_uint64 * 17),  # up to recursion_misses
        ("verified_instructions", c_uint32),
        ("attach_btf", c_uint32 * 2),
    )


class _TestRunOptions(ctypes.Structure):
    _fields_ = (
        ("size", c_size_t),
        ("data_in", c_void_p),
        ("data_out", c_void_p),
        ("data_size_in", c_uint32),
        ("data_size_out", c_uint32),
        ("ctx_in", c_void_p),
        ("ctx_out", c_void_p),
        ("ctx_size_in", c_uint32),
        ("ctx_size_out", c_uint32),
        ("retval", c_uint32),
        ("repeat", c_int),
        ("duration", c_uint32),
        ("flags", c_uint32),
        ("cpu", c_uint32),
        ("batch_size", c_uint32),
    )


class Program(BpfObject):
    """An open program."""

    kind = "program"

    @classmethod
    def load(cls, kind: int, name: str, code: bytes) -> Self:
        """A program of a few instructions that needs no maps; `kind` is the kernel's number."""
        result = library().bpf_prog_load(
            c_int(kind),
            c_char_p(name.encode()),
            c_char_p(b"Dual BSD/GPL"),
            c_char_p(code),
            c_size_t(len(code) // 8),
            None,
        )
        return cls(checked(result, f"loading the program {name}"), name)

    def info(self) -> ProgramInfo:
        info = self.read_info(_Info())
        return ProgramInfo(
            info.type,
            info.id,
            info.name.decode(),
            bytes(info.tag).hex(),
            info.translated_length // 8,
            info.verified_instructions,
        )

    def map_ids(self) -> list[int]:
        """The ids of the maps that it works on."""
        count = self.read_info(_Info()).map_count
        ids = (c_uint32 * count)()
        self.read_info(_Info(map_count=count, map_ids=ctypes.addressof(ids)))
        return list(ids)

    def test_run(
        self,
        data_in: bytes = b"",
        ctx_in: bytes = b"",
        data_size_out: int | None = None,
        repeat: int = 1,
        flags: int = 0,
    ) -> TestRun:
        """Runs the program on `data_in` (TC and XDP want at least 14 bytes).

        data_size_out: room for the result, by default 256 bytes more than came in.
        """
        room = len(data_in) + 256 if data_size_out is None else data_size_out
        data_out = ctypes.create_string_buffer(room) if data_in and room else None
        ctx_out = ctypes.create_string_buffer(len(ctx_in)) if ctx_in else None
        options = _TestRunOptions(
            size=ctypes.sizeof(_TestRunOptions), data_size_in=len(data_in), repeat=repeat
        )
        options.flags = flags
        source = ctypes.create_string_buffer(data_in, len(data_in)) if data_in else None
        context = ctypes.create_string_buffer(ctx_in, len(ctx_in)) if ctx_in else None
        options.data_in = ctypes.cast(source, c_void_p) if source else None
        options.ctx_in = ctypes.cast(context, c_void_p) if context else None
        options.ctx_size_in = len(ctx_in)
        if data_out:
            options.data_out = ctypes.cast(data_out, c_void_p)
            options.data_size_out = room
        if ctx_out:
            options.ctx_out = ctypes.cast(ctx_out, c_void_p)
            options.ctx_size_out = len(ctx_in)
        result = library().bpf_prog_test_run_opts(self.fd, ctypes.byref(options))
        checked(result, f"running the program {self.name} on {len(data_in)} bytes")
        return TestRun(
            options.retval,
            data_out.raw[: options.data_size_out] if data_out else b"",
            ctx_out.raw[: options.ctx_size_out] if ctx_out else b"",
            options.duration,
        )

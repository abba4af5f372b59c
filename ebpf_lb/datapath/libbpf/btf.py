"""What the running kernel says of itself (BTF): where a structure's field lies, and the numbers of
functions that programs may call (kfuncs).
"""

import ctypes
from collections.abc import Iterator
from contextlib import contextmanager
from ctypes import c_char_p, c_int, c_uint32, c_void_p
from dataclasses import dataclass

from ebpf_lb.datapath.libbpf.object import library

_STRUCT, _UNION, _FUNC = 4, 5, 12  # BTF_KIND_...
_TYPE_BYTES = 12
_HAS_BITFIELDS = 1 << 31  # in `info` of a structure: its members' offsets say how wide they are


class _Type(ctypes.Structure):
    """struct btf_type, which members follow."""

    _fields_ = (("name", c_uint32), ("info", c_uint32), ("size", c_uint32))

    @property
    def kind(self) -> int:
        return int(self.info) >> 24 & 0x1F


class _Member(ctypes.Structure):
    """struct btf_member."""

    _fields_ = (("name", c_uint32), ("type", c_uint32), ("offset", c_uint32))


@dataclass(frozen=True, slots=True)
class Field:
    """Where it begins, and how many bits it has; 0: not a bit field."""

    bit: int
    width: int


class KernelTypes:
    """The kernel's own BTF."""

    def __init__(self, handle: int) -> None:
        self._handle = handle

    def field(self, structure: str, name: str) -> Field | None:
        """A field, also of a structure without name inside; None: there is none."""
        number = self._find(structure, _STRUCT)
        return None if number is None else self._field(number, name.encode())

    def function(self, name: str) -> int | None:
        """The number by which programs call it; None: the kernel does not have it."""
        return self._find(name, _FUNC)

    def _find(self, name: str, kind: int) -> int | None:
        found = int(_functions().btf__find_by_name_kind(self._handle, name.encode(), kind))
        return found if found > 0 else None

    def _field(self, number: int, name: bytes) -> Field | None:
        address = _functions().btf__type_by_id(self._handle, number)
        if not address:
            return None
        kind = _Type.from_address(address)
        if kind.kind not in (_STRUCT, _UNION):
            return None
        members = (_Member * (kind.info & 0xFFFF)).from_address(address + _TYPE_BYTES)
        packed = bool(kind.info & _HAS_BITFIELDS)
        for member in members:
            bit = member.offset & 0xFFFFFF if packed else member.offset
            if not member.name:
                inner = self._field(member.type, name)
                if inner is not None:
                    return Field(bit + inner.bit, inner.width)
            elif _functions().btf__name_by_offset(self._handle, member.name) == name:
                return Field(bit, member.offset >> 24 if packed else 0)
        return None


@contextmanager
def kernel_types() -> Iterator[KernelTypes | None]:
    """The kernel's, for as long as the block runs: they take megabytes. None: it has none."""
    handle = _functions().btf__load_vmlinux_btf()
    if not handle:
        yield None
        return
    try:
        yield KernelTypes(handle)
    finally:
        _functions().btf__free(handle)


def _functions() -> ctypes.CDLL:
    loaded = library()
    if loaded.btf__load_vmlinux_btf.restype is not c_void_p:
        for name, result, arguments in (
            ("btf__load_vmlinux_btf", c_void_p, ()),
            ("btf__free", None, (c_void_p,)),
            ("btf__find_by_name_kind", c_int, (c_void_p, c_char_p, c_uint32)),
            ("btf__type_by_id", c_void_p, (c_void_p, c_uint32)),
            ("btf__name_by_offset", c_char_p, (c_void_p, c_uint32)),
        ):
            function = getattr(loaded, name)
            function.restype, function.argtypes = result, arguments
    return loaded

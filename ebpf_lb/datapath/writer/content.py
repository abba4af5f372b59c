"""What stands in a region of `slots`: backend ids, one each, or many each by consistent hashing, or
as many as weights say."""

import hashlib
import struct
from array import array
from collections.abc import Sequence
from dataclasses import dataclass

from ebpf_lb.datapath.writer.records import FLAG_BITS, Backends, pack_ids
from ebpf_lb.plan import maglev
from ebpf_lb.plan.forwarding import Backend, Spread, Table

_TABLE = b"#"  # with it a mark's length is odd: no ids look so
_DIGEST_BYTES = 16


@dataclass(frozen=True, slots=True)
class Content:
    """Of one set of a Service port.

    mark: what a record keeps of it, equal exactly when contents are equal. The ids themselves; of
    a table, which may have a hundred thousand slots, a digest of what it follows from.
    """

    mark: bytes
    size: int
    table: Table | None
    keys: Sequence[bytes]
    ids: Sequence[int]

    @classmethod
    def of(
        cls,
        backends: tuple[Backend, ...],
        table: Table | None,
        ids: Backends,
        *,
        in_order: bool = False,
    ) -> "Content":
        """In the plan's order, the same on every node. in_order: `ids` begins with them."""
        if table is not None and table.spread is Spread.ONE_EACH:
            table = None
        if in_order and table is None and len(backends) == len(ids):  # nearly always
            numbers = [entry >> FLAG_BITS for entry in ids.values()]
            return cls(pack_ids(numbers), len(numbers), None, (), numbers)
        keys = [backend.address + backend.port.to_bytes(2) for backend in backends]
        numbers = [ids[key] >> FLAG_BITS for key in keys]
        if table is None:
            return cls(pack_ids(numbers), len(numbers), None, keys, numbers)
        said = hashlib.blake2b(digest_size=_DIGEST_BYTES)
        said.update(struct.pack("=I", table.size))
        said.update(table.spread.value.encode())
        said.update(pack_ids(table.weights))
        said.update(pack_ids(numbers))
        said.update(b"".join(keys))
        return cls(_TABLE + said.digest(), table.size, table, keys, numbers)

    def slots(self) -> bytes:
        """Every slot's id, as in the map. Of a table that is some work."""
        if self.table is None:
            return self.mark
        if self.table.spread is Spread.IN_TURN:
            turns = maglev.turns(len(self.keys), self.table.weights)
            return pack_ids([self.ids[turn] for turn in turns])
        owners = maglev.table(self.keys, self.table.weights, self.table.size)
        return array("I", map(self.ids.__getitem__, owners)).tobytes()

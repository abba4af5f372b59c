"""What the plan yields: for every Service port and family, who may be reached and how.

This is the contract between `plan` (which decides) and `datapath` (which writes it down): total
values, sorted, equal exactly when the maps they ask for are equal. Those of which there are many
are tuples, which are made and compared fastest.
"""

from dataclasses import dataclass, replace
from enum import Enum, IntEnum, IntFlag
from typing import NamedTuple

from ebpf_lb.model.service import Algorithm
from ebpf_lb.model.values import Family, Network, Protocol


class FrontendKind(IntEnum):
    """Which of a Service's addresses a frontend stands for. Numbers as in bpf/ground/layout.h."""

    CLUSTER_IP = 1
    NODE_PORT = 2
    LOAD_BALANCER = 3
    EXTERNAL_IP = 4


class FrontendFlag(IntFlag):
    """Bits as FRONTEND_* in bpf/ground/layout.h."""

    LOCAL = 1  # the traffic policy that counts at this frontend is Local (iTP or eTP)
    SOURCE_RANGES = 2  # only clients inside the Service's loadBalancerSourceRanges
    CONSISTENT = 4  # by consistent hashing; the kernel is told so when that has held for a minute
    YOUNG = 8  # and this until then: no plan has it


NO_FLAGS = FrontendFlag(0)


class ServicePortName(NamedTuple):
    """A Service's port, the unit in which everything is planned, written and counted."""

    namespace: str
    name: str
    port: str  # the port's name; "" for a Service with one unnamed port
    protocol: Protocol

    def __str__(self) -> str:
        """`namespace/name:port`, without the colon for an unnamed port, as kube-proxy prints."""
        return f"{self.namespace}/{self.name}" + (f":{self.port}" if self.port else "")


class Frontend(NamedTuple):
    """An address and port that we accept connections on; the protocol is its Service port's."""

    address: bytes
    port: int
    kind: FrontendKind
    flags: FrontendFlag = NO_FLAGS


class Backend(NamedTuple):
    """An address and port that we send to. `local`: the pod runs on this node."""

    address: bytes
    port: int
    local: bool


class Spread(Enum):
    """Which of a set's slots is whose."""

    MAGLEV = "maglev"  # as in plan/maglev.py
    IN_TURN = "in turn"  # as often as weights say, evenly distributed
    ONE_EACH = "one each"  # weights count otherwise


class Table(NamedTuple):
    """A set whose slots are not simply one for each backend.

    weights: of the set's backends, in their order; () where they are equal.
    """

    size: int
    weights: tuple[int, ...] = ()
    spread: Spread = Spread.MAGLEV


@dataclass(frozen=True, slots=True)
class Forwarding:
    """One Service port in one family. Tuples are sorted and free of duplicates.

    cluster, local: the two sets of usable backends, both of them what the law calls the set
    that the policy asks for, fallbacks included; `()` where the Service does not use that set.
    has_any: some endpoint anywhere is ready, or serving and terminating (else: REJECT).
    affinity_timeout_s: 0 without session affinity.
    algorithm: by which one of a set's backends is chosen.
    cluster_table, local_table: for consistent hashing, or for weights; None: one slot a backend.
    """

    name: ServicePortName
    family: Family
    frontends: tuple[Frontend, ...]
    cluster: tuple[Backend, ...]
    local: tuple[Backend, ...]
    has_any: bool
    affinity_timeout_s: int = 0
    source_ranges: tuple[Network, ...] = ()
    cluster_table: Table | None = None
    local_table: Table | None = None
    algorithm: Algorithm = Algorithm.RANDOM

    @property
    def by_table(self) -> bool:
        return self.cluster_table is not None or self.local_table is not None

    def without_tables(self) -> "Forwarding":
        """The same, only that connections are not hashed consistently, and weights do not count."""
        frontends = tuple(
            [one._replace(flags=one.flags & ~FrontendFlag.CONSISTENT) for one in self.frontends]
        )
        hashed = self.algorithm is Algorithm.MAGLEV
        return replace(
            self,
            frontends=frontends,
            cluster_table=None,
            local_table=None,
            algorithm=Algorithm.RANDOM if hashed else self.algorithm,
        )

"""Who has which address, port and protocol, where several Services ask for one.

An index: for each frontend those who claim it, the strongest first. So a change costs what it
changes, however many Services share an address: a Service's own claims are looked up one by one,
and who must be planned again are those who win or lose something by it, not everybody who asked.
"""

from bisect import bisect_left, insort
from collections.abc import Mapping

from ebpf_lb.model.key import ObjectKey
from ebpf_lb.plan.claims import Claim, FrontendKey, Rank


class Owners:
    def __init__(self) -> None:
        # nearly always there is one, and then it stands alone
        self._claimants: dict[FrontendKey, Rank | list[Rank]] = {}
        self._moved: dict[FrontendKey, int] = {}  # owner changed: how many others know

    def __bool__(self) -> bool:
        return bool(self._claimants)

    def take_misinformed(self, limit: int) -> list[ObjectKey]:
        """Some of those who got nothing, before or now, but from another owner: all that changes
        for them is what they are told. Again and again, as there may be very many."""
        found: dict[ObjectKey, None] = {}
        while self._moved and len(found) < limit:
            key, first = next(iter(self._moved.items()))
            held = self._claimants.get(key)
            some = held[first : first + limit] if isinstance(held, list) else []
            found.update((rank.service, None) for rank in some)
            if len(some) < limit:
                del self._moved[key]
            else:
                self._moved[key] = first + limit
        return list(found)

    def owner(self, key: FrontendKey) -> Rank:
        """The strongest claim. KeyError if there is none."""
        held = self._claimants[key]
        return held[0] if isinstance(held, list) else held

    def owns(self, key: FrontendKey, claim: Claim) -> bool:
        held = self._claimants[key]
        if isinstance(held, list):
            held = held[0]
        return held is claim.rank or held == claim.rank

    def replace(
        self, before: Mapping[FrontendKey, Claim], after: Mapping[FrontendKey, Claim]
    ) -> set[ObjectKey]:
        """What one Service asked for, and what it asks for now. Returns whose frontends are others
        than before, itself apart."""
        touched: set[ObjectKey] = set()
        for key, claim in before.items():
            if key not in after:
                self._remove(key, claim.rank, touched)
        for key, claim in after.items():
            held = before.get(key)
            if held is not None and held.rank == claim.rank:
                continue
            if held is not None:
                self._remove(key, held.rank, touched)
            self._add(key, claim.rank, touched)
        return touched

    def _add(self, key: FrontendKey, rank: Rank, touched: set[ObjectKey]) -> None:
        held = self._claimants.get(key)
        if held is None:
            self._claimants[key] = rank
            return
        if not isinstance(held, list):
            held = self._claimants[key] = [held]
        owner = held[0]
        insort(held, rank)
        if held[0] is not owner:
            touched.add(owner.service)
            self._note_move(key, held)

    def _remove(self, key: FrontendKey, rank: Rank, touched: set[ObjectKey]) -> None:
        held = self._claimants[key]
        if not isinstance(held, list):
            del self._claimants[key]
            return
        at = bisect_left(held, rank)
        del held[at]
        if at == 0:
            touched.add(held[0].service)
            self._note_move(key, held)
        if len(held) == 1:
            self._claimants[key] = held[0]

    def _note_move(self, key: FrontendKey, held: list[Rank]) -> None:
        """The new owner and the old one are planned again; the others are not."""
        if len(held) > 1:
            self._moved[key] = 1

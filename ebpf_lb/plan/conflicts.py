"""What a Service asks for and does not get, for people. Few sentences, however much it asks for."""

from collections.abc import Iterable, Mapping

from ebpf_lb.model.key import ObjectKey
from ebpf_lb.plan.claims import FrontendKey, Rank, describe
from ebpf_lb.plan.reserved import Reserved

MOST_SENTENCES = 4


def sentences(
    service: ObjectKey, barred: Mapping[FrontendKey, Reserved], lost: Mapping[FrontendKey, Rank]
) -> list[str]:
    """One a frontend, the first few; the last one counts the others."""
    found = [_barred(service, key, barred[key]) for key in _first(barred)]
    found += [_lost(service, key, lost[key]) for key in _first(lost)]
    told = found[:MOST_SENTENCES]
    left = len(barred) + len(lost) - len(told)
    if left:
        told.append(f"Service {service} does not get {left} more addresses and ports.")
    return told


def _first(keys: Iterable[FrontendKey]) -> list[FrontendKey]:
    return sorted(keys)[:MOST_SENTENCES]


def _barred(service: ObjectKey, key: FrontendKey, reserved: Reserved) -> str:
    return (
        f"Service {service} does not get {describe(key)}: there is {reserved.what}, by which this "
        "node lives; give it another address or port."
    )


def _lost(service: ObjectKey, key: FrontendKey, winner: Rank) -> str:
    return (
        f"Service {service} does not get {describe(key)}: Service {winner.service} has it; "
        "give one of them another address or port."
    )

"""What a look at a node finds."""

from enum import Enum
from typing import NamedTuple


class Sign(Enum):
    """GOOD; REMARK: nobody needs to do anything at once; BAD: Services suffer by it."""

    GOOD = "good"
    REMARK = "remark"
    BAD = "bad"


class Finding(NamedTuple):
    """`sentence` without its full stop; `remedy`: what to do, "" for nothing."""

    sign: Sign
    what: str
    sentence: str
    remedy: str = ""


def good(what: str, sentence: str) -> Finding:
    return Finding(Sign.GOOD, what, sentence)


def remark(what: str, sentence: str, remedy: str = "") -> Finding:
    return Finding(Sign.REMARK, what, sentence, remedy)


def bad(what: str, sentence: str, remedy: str) -> Finding:
    return Finding(Sign.BAD, what, sentence, remedy)

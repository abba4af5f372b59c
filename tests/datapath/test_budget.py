"""No program grows without somebody seeing it: what the verifier goes through for each."""

from pathlib import Path

import pytest

from tests.capabilities import DATAPATH, needs
from tests.datapath import budget
from tests.datapath.conftest import SETTINGS

pytestmark = needs(*DATAPATH)


@pytest.fixture(scope="module")
def verified(loaded_root: Path) -> dict[budget.Key, int]:
    return budget.measured(loaded_root, SETTINGS)


def test_each_program_keeps_within_its_budget(verified: dict[budget.Key, int]) -> None:
    assert budget.over(verified) == []


def test_the_budget_is_about_these_programs(verified: dict[budget.Key, int]) -> None:
    """Names change one by one; a file that knows few of them holds nothing any more."""
    known = verified.keys() & budget.read().keys()
    assert len(known) > len(verified) * 3 / 4, "`make budget` writes new figures"


def test_a_program_that_grows_is_named() -> None:
    key, figure = max(budget.read().items(), key=lambda item: item[1])
    assert budget.over({key: figure}) == []
    [sentence] = budget.over({key: figure * 3})
    assert sentence.startswith(" ".join(key))
    [sentence] = budget.over({("ipv4", "new"): budget.NEW + 1})
    assert sentence.startswith("ipv4 new: ")

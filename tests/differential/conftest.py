"""Two nodes, wired and loaded once a session."""

from collections.abc import Iterator

import pytest

from ebpf_lb.model.values import Family
from tests.differential import compare
from tests.differential.compare import Peers


@pytest.fixture(scope="session")
def peers() -> Iterator[Peers]:
    with compare.peers("peer") as made:
        yield made


@pytest.fixture(params=list(Family), ids=lambda family: family.directory)
def family(request: pytest.FixtureRequest) -> Family:
    return request.param  # type: ignore[no-any-return]

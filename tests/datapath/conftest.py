"""The programs in the kernel, compiled once a session under a bpffs folder of their own."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from ebpf_lb.datapath.settings import Settings
from ebpf_lb.model.values import Family
from tests.datapath.chain import Chain, emptied, node_network
from tests.datapath.kernel import Kernel, loaded

# small tables: a test can read all of them, and fill them; they are emptied before each test
SETTINGS = Settings(
    flows=1024, services=1024, backends=4096, affinity=1024, fragments=64, sockets=1024, xdp=True
)


@pytest.fixture(scope="session")
def loaded_root() -> Iterator[Path]:
    with loaded("packets", SETTINGS) as root:
        yield root


@pytest.fixture(scope="session")
def _kernels(loaded_root: Path) -> dict[Family, Kernel]:
    return {family: Kernel(loaded_root, family) for family in Family}


@pytest.fixture(params=list(Family), ids=lambda family: family.directory)
def kernel(request: pytest.FixtureRequest, _kernels: dict[Family, Kernel]) -> Kernel:
    """Each test runs for both families, on empty maps. A module with other settings has another
    `_kernels`."""
    kernel = _kernels[request.param]
    kernel.reset()
    return kernel


@pytest.fixture
def chain(_kernels: dict[Family, Kernel]) -> Iterator[Chain]:
    """The whole way from the API's objects to packets, from empty maps on."""
    with emptied(_kernels), node_network() as uplink:
        yield Chain(_kernels, uplink)

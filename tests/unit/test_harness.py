"""The rules of tests/conftest.py, and the capability probes."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from ebpf_lb.datapath.loader.programs import STACK
from ebpf_lb.model.values import Family
from tests import capabilities, conftest
from tests.support import syntax

pytest_plugins = ["pytester"]

SKIPPING = """
    import pytest

    @pytest.mark.skipif(True, reason="missing: a thing (get one)")
    def test_by_mark(): pass

    def test_inside(): pytest.skip("missing: another thing")

    def test_fine(): pass
"""


@pytest.mark.parametrize("in_ci", [False, True])
def test_a_skip_is_a_failure_in_ci(
    pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch, in_ci: bool
) -> None:
    monkeypatch.setenv("CI", str(in_ci).lower())
    pytester.makeconftest(Path(conftest.__file__).read_text())
    pytester.makepyfile(SKIPPING)
    result = pytester.runpytest_subprocess("-ra", "-p", "no:cacheprovider")
    # a mark skips in the set-up, and a set-up that fails is an error
    expected = {"failed": 1, "errors": 1} if in_ci else {"skipped": 2}
    result.assert_outcomes(passed=1, **expected)
    result.stdout.fnmatch_lines(["*missing: a thing (get one)*"])
    assert result.ret == (1 if in_ci else 0)


def test_a_missing_capability_is_named_with_its_remedy() -> None:
    lacking = capabilities.Capability("gills", "grow some", lambda: False)
    mark = capabilities.needs(capabilities.Capability("air", "", lambda: True), lacking)
    assert mark.args == (True,)
    assert mark.kwargs["reason"] == "missing: gills (grow some)"


@pytest.mark.skipif(os.geteuid() != 0, reason="missing: root (run as root)")
def test_probes_leave_nothing_behind() -> None:
    """In a process where no other test's garbage closes anything meanwhile."""
    code = "import os; from tests import capabilities\n"
    code += "before = os.listdir('/proc/self/fd')\n"
    code += "for capability in capabilities.LAB: capability.probe()\n"
    code += "assert os.listdir('/proc/self/fd') == before"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=Path(__file__).parents[2])


@pytest.mark.parametrize(
    ("body", "fine"),
    [
        ("config_get();", True),
        ("confg_get();", False),  # no such function
        ("int unused;", False),
        ("return config_get() == 1;", False),  # a pointer is not a number
    ],
)
def test_the_c_programs_are_checked(tmp_path: Path, body: str, fine: bool) -> None:
    file = tmp_path / "program.c"
    text = f'#include "ground/maps.h"\nint program(void *ctx) {{ {body} return 0; }}\n'
    file.write_text(text)
    command = syntax.command("clang-14", STACK, Family.IPV6, file)
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode == 0) == fine, done.stderr

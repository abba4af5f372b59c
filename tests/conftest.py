"""Rules for all tests: a skip names what is missing, and in CI nothing is skipped; how fast a
machine is decides nothing, and neither does chance in CI."""

import os
from collections.abc import Generator

import pytest
from hypothesis import HealthCheck, settings

from tests.support import chance

IN_CI = os.environ.get("CI", "").lower() in ("1", "true", "yes")

settings.register_profile(
    "any machine",
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
    max_examples=chance.times(100),
    derandomize=IN_CI and chance.SEED is None,
    **({"database": None} if IN_CI else {}),
)
settings.load_profile("any machine")


@pytest.hookimpl(tryfirst=True)
def pytest_configure(config: pytest.Config) -> None:
    """One seed for all that is left to chance."""
    if chance.SEED is not None and config.option.hypothesis_seed is None:
        config.option.hypothesis_seed = str(chance.SEED)


def pytest_report_header() -> str:
    seed = chance.SEED or ("as in every run" if IN_CI else "each test's own")
    return f"chance: depth {chance.DEPTH}, seed {seed} ({chance.SEED_VARIABLE}=N sets it)"


def _forbid_skip(report: pytest.TestReport | pytest.CollectReport) -> None:
    if IN_CI and report.skipped and not hasattr(report, "wasxfail"):
        reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else report.longrepr
        report.outcome = "failed"
        report.longrepr = f"skipped, which CI does not allow: {reason}"


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    _forbid_skip(report)
    return report


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report() -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    report = yield
    _forbid_skip(report)
    return report

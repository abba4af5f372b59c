"""A plugin for pytest that prints a failure when it happens: a guest may not live to the end.

run.sh KERNEL 'python -m pytest -p tests.kernels.checks.at_once -p no:cacheprovider tests/…'
"""

import pytest


@pytest.hookimpl(trylast=True)
def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    if report.failed:
        print(
            f"\n--- {report.nodeid}, {report.when}, {report.duration:.0f} s\n{report.longreprtext}"
        )

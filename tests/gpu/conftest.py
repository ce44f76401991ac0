"""What tests on a GPU share: one rank that computes one case after another."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from tools.benchmarks.rank_pool import RankPool


@pytest.fixture(scope="session")
def rank() -> Iterator[RankPool]:
    """One rank; the GPU is its own, apart from what this process holds."""
    with RankPool(1) as started:
        yield started


class SayAtOnce:
    """Prints why a test failed when it fails: a run that has minutes may not reach its end."""

    def __init__(self, terminal: Any) -> None:
        self._terminal = terminal

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.failed and "_on_gpu.py" in report.nodeid:
            self._terminal.write_line(f"\n{report.nodeid}, {report.when}:\n{report.longreprtext}")


def pytest_configure(config: pytest.Config) -> None:
    terminal = config.pluginmanager.get_plugin("terminalreporter")
    if terminal is not None:
        config.pluginmanager.register(SayAtOnce(terminal))

"""What tests on a GPU share: one rank that computes one case after another."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tools.benchmarks.rank_pool import RankPool


@pytest.fixture(scope="session")
def rank() -> Iterator[RankPool]:
    """One rank; the GPU is its own, apart from what this process holds."""
    with RankPool(1) as started:
        yield started

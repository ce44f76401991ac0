"""One pool of ranks serves every test of this folder."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tools.benchmarks.rank_pool import RankPool


@pytest.fixture(scope="session")
def pool() -> Iterator[RankPool]:
    with RankPool(4) as started:
        yield started

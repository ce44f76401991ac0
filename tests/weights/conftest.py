"""One pool of ranks serves every test of this folder; a model folder of each kind to start from."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from random_source import random_model

from tools.benchmarks.parity.models import MODELS
from tools.benchmarks.rank_pool import RankPool

DTYPES = {"dense": "float32", "moe gqa": "float32", "mla moe mtp": "bfloat16"}
"""The biases of the last one's routers are float32 all the same: two dtypes travel together."""


@pytest.fixture(scope="session")
def pool() -> Iterator[RankPool]:
    with RankPool(4) as started:
        yield started


@pytest.fixture(scope="session")
def sources(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A Hugging Face folder for each of MODELS."""
    return {
        name: random_model(tmp_path_factory.mktemp("source") / "model", MODELS[name], dtype)
        for name, dtype in DTYPES.items()
    }

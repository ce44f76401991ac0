"""Layouts equal one process, their ranks on one GPU over NCCL.

The layers are ours in torch: the bounds of the parity table are float32's, and Transformer Engine
multiplies float32 in TF32. ``test_layer_specs_on_gpu.py`` compares the layers.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from layer_cases import updates

from engine.config.layout import LayoutConfig
from tools.benchmarks.parity.compare import compare
from tools.benchmarks.parity.models import MODELS
from tools.benchmarks.parity.updates import LOSSES
from tools.benchmarks.rank_pool import RankPool

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device"),
]

ONE = LayoutConfig(processes=1)
LAYOUTS = {
    "tp2": LayoutConfig(processes=2, tp=2),
    "pp2": LayoutConfig(processes=2, pp=2),
    "ep2": LayoutConfig(processes=2, ep=2),
    "cp2": LayoutConfig(processes=2, cp=2),
}


@pytest.fixture(scope="module")
def pool() -> Iterator[RankPool]:
    """Two ranks, each with a GPU of its own where there are two."""
    with RankPool(2) as started:
        yield started


@pytest.fixture(scope="module", params=MODELS)
def given(request: pytest.FixtureRequest) -> dict[str, Any]:
    model = MODELS[request.param]
    return {"layers": "torch", "model": model, "kinds": tuple(LOSSES), "options": {}}


@pytest.fixture(scope="module")
def expected(pool: RankPool, given: dict[str, Any]) -> Any:
    return pool.run(updates, ONE, **given)[0]


@pytest.mark.parametrize("layout", LAYOUTS.values(), ids=LAYOUTS)
def test_a_layout_equals_one_process(
    pool: RankPool, given: dict[str, Any], expected: Any, layout: LayoutConfig
) -> None:
    if layout.ep > 1 and given["model"] is MODELS["dense"]:
        pytest.skip("a dense model has no experts")
    found = pool.run(updates, layout, **given)[0]
    for kind in LOSSES:
        difference = compare(expected["before"].weights, expected[kind], found[kind])
        assert difference.holds, f"{kind}: {difference}"

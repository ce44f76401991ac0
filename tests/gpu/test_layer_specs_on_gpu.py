"""Transformer Engine's layers compute what ours in torch do.

Both start from the same weights by checkpoint key. Neither is exact: Transformer Engine rounds the
factors of float32 products to TF32, bfloat16 rounds everything. So the ruler is torch itself: ours
in float32 are right, ours in the same coarse precision show what that precision costs these models,
and Transformer Engine's may be three times as far off (rounding to TF32 by cutting, emulated, costs
twice what rounding to the nearest does), and never further than a fixed bound.

Every token visits every expert. Where some are chosen rounding decides: with 3 of 8 two ways of
rounding torch's own factors to TF32 were off by 1.6e-2 and 4.0e-2 nats, and this test failed once.
"""

from __future__ import annotations

from typing import Literal

import pytest
import torch
from layer_cases import Passes, passes
from torch import Tensor
from wide_models import WIDE_MODELS, without_choice

from engine.config.layout import LayoutConfig
from engine.platform import accelerator
from tools.benchmarks.rank_pool import RankPool

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device"),
    pytest.mark.skipif(
        not accelerator.has_transformer_engine(), reason="Transformer Engine cannot be imported"
    ),
]

Precision = Literal["float32", "bfloat16"]
ONE = LayoutConfig(processes=1)
TIMES_TORCH = 3.0
MAX_LOGP = {"float32": 0.03, "bfloat16": 0.4}
"""Nats, root mean square."""
MAX_GRADIENT = {"float32": 0.03, "bfloat16": 0.4}
"""Of the norm of all gradients."""
LEAST_OF_ONE = {"float32": 0.05, "bfloat16": 0.25}
"""Of the norm of one tensor's gradient: allowed even where torch happens to be closer."""


@pytest.fixture(scope="module", params=WIDE_MODELS)
def model(request: pytest.FixtureRequest) -> str:
    """Scope ``module``: the exact passes are computed once for both precisions."""
    return str(request.param)


@pytest.fixture(scope="module")
def exact(rank: RankPool, model: str) -> Passes:
    found: Passes = rank.run(
        passes, ONE, layers="torch", model=without_choice(WIDE_MODELS[model]), dtype="float32"
    )[0]
    return found


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_the_engines_layers_equal_ours(
    rank: RankPool, model: str, exact: Passes, precision: Precision
) -> None:
    given = {"model": without_choice(WIDE_MODELS[model]), "dtype": precision}
    coarse = rank.run(passes, ONE, layers="torch", **given, tf32=precision == "float32")[0]
    engine = rank.run(passes, ONE, layers="engine", **given)[0]
    check_weights(coarse, engine)
    check_log_probabilities(exact, coarse, engine, precision)
    check_gradients(exact, coarse, engine, precision)


def check_weights(coarse: Passes, engine: Passes) -> None:
    assert set(engine.weights) == set(coarse.weights)
    for key, weight in engine.weights.items():
        assert weight.equal(coarse.weights[key]), key


def check_log_probabilities(
    exact: Passes, coarse: Passes, engine: Passes, precision: Precision
) -> None:
    ruler = _root_mean_square(coarse.logp - exact.logp)
    off = _root_mean_square(engine.logp - exact.logp)
    assert off <= TIMES_TORCH * ruler, f"off by {off:.2e} nats, torch by {ruler:.2e}"
    assert off <= MAX_LOGP[precision]


def check_gradients(exact: Passes, coarse: Passes, engine: Passes, precision: Precision) -> None:
    assert set(engine.gradients) == set(exact.gradients)
    ruler, off = (_distances(exact, found) for found in (coarse, engine))
    length = {key: _norm(tensor) for key, tensor in exact.gradients.items()}
    everything = _together(length)
    share, ruled = (_together(found) / everything for found in (off, ruler))
    assert share <= TIMES_TORCH * ruled, f"gradients off by {share:.2%}, torch's by {ruled:.2%}"
    assert share <= MAX_GRADIENT[precision]
    for key in length:
        most = max(LEAST_OF_ONE[precision] * length[key], TIMES_TORCH * ruler[key])
        assert off[key] <= most, f"{key}: off by {off[key]:.2e}, allowed {most:.2e}"


def _distances(exact: Passes, found: Passes) -> dict[tuple[str, int | None], float]:
    return {
        key: _norm(found.gradients[key].double() - tensor.double())
        for key, tensor in exact.gradients.items()
    }


def _together(norms: dict[tuple[str, int | None], float]) -> float:
    return sum(norm**2 for norm in norms.values()) ** 0.5


def _norm(tensor: Tensor) -> float:
    return float(tensor.double().norm())


def _root_mean_square(values: Tensor) -> float:
    return float(values.double().square().mean().sqrt())

"""The programs of the GPU's tests, on a CPU, where both kinds of layers are ours."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from fp8_cases import train
from layer_cases import Passes, load, passes, save
from test_layer_specs_on_gpu import check_gradients, check_log_probabilities, check_weights
from wide_models import WIDE_MODELS

from engine.config.layout import LayoutConfig
from engine.platform import accelerator
from tools.benchmarks.rank_pool import RankPool
from tools.benchmarks.training.variants import SMALL_MODEL

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(accelerator.has_gpu(), reason="the GPU's own tests say more"),
]

ONE = LayoutConfig(processes=1)
MODEL = "mla moe mtp"


@pytest.fixture(scope="module")
def exact(rank: RankPool) -> Passes:
    given = {"model": WIDE_MODELS[MODEL], "dtype": "float32"}
    found: Passes = rank.run(passes, ONE, layers="torch", **given)[0]
    return found


def test_the_comparison_accepts_layers_that_are_the_same(rank: RankPool, exact: Passes) -> None:
    given = {"model": WIDE_MODELS[MODEL], "dtype": "float32"}
    again = rank.run(passes, ONE, layers="engine", **given)[0]
    check_weights(exact, again)
    check_log_probabilities(exact, exact, again, "float32")
    check_gradients(exact, exact, again, "float32")


def test_the_comparison_refuses_one_wrong_gradient(exact: Passes) -> None:
    """Of the smallest tensor, which the norm of all of them would hide."""
    smallest = min(exact.gradients, key=lambda key: float(exact.gradients[key].norm()))
    wrong = {**exact.gradients, smallest: -exact.gradients[smallest]}
    with pytest.raises(AssertionError, match="off by"):
        check_gradients(exact, exact, replace(exact, gradients=wrong), "bfloat16")
    with pytest.raises(AssertionError, match="nats"):
        check_log_probabilities(exact, exact, replace(exact, logp=exact.logp + 0.5), "bfloat16")


@pytest.mark.parametrize("asynchronous", [False, True])
def test_a_checkpoint_of_either_kind_loads(
    rank: RankPool, tmp_path: Path, asynchronous: bool
) -> None:
    given = {"model": WIDE_MODELS[MODEL], "dtype": "bfloat16", "folder": tmp_path}
    saved = rank.run(save, ONE, layers="engine", asynchronous=asynchronous, **given)[0]
    before, after = rank.run(load, ONE, layers="torch", **given)[0]
    assert not all(before[key].equal(saved[key]) for key in saved)
    assert set(after) == set(saved) and all(after[key].equal(saved[key]) for key in saved)


def test_there_is_something_to_learn_and_both_courses_begin_alike(rank: RankPool) -> None:
    given = {"model": {**SMALL_MODEL, "vocab_size": 128}, "fp8": "none", "updates": 6}
    first, second = (rank.run(train, ONE, **given)[0] for _ in range(2))
    assert first.losses[-1] < first.losses[0] - 0.02
    assert second.beginning == first.beginning
    assert second.losses == pytest.approx(first.losses, rel=1e-6)
    assert all(torch.tensor(first.losses).isfinite())

"""Training in FP8 loses as training in bfloat16 does.

DeepSeek-V3 reports a relative error of the loss below 0.25 % (arXiv 2412.19437, section 3.3).
"""

from __future__ import annotations

from statistics import fmean

import pytest
import torch
from fp8_cases import Course, train

from engine.config.layout import LayoutConfig
from engine.platform import accelerator
from engine.platform.precision import fp8_obstacle
from tools.benchmarks.rank_pool import RankPool
from tools.benchmarks.training.variants import SMALL_MODEL

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device"),
]

ONE = LayoutConfig(processes=1)
UPDATES = 30
LAST = 10
MAX_DIFFERENCE = 0.0025
MODEL = {**SMALL_MODEL, "vocab_size": 128}
"""Few words, so that thirty updates learn something. All sizes are multiples of 128."""


@pytest.fixture(scope="module")
def bfloat16(rank: RankPool) -> Course:
    course: Course = rank.run(train, ONE, model=MODEL, fp8="none", updates=UPDATES)[0]
    begun, ended = course.losses[0], fmean(course.losses[-LAST:])
    assert ended < 0.9 * begun, f"nothing to compare: the loss went from {begun} to {ended}"
    return course


@pytest.mark.parametrize("recipe", ["blockwise", "tensorwise", "delayed", "mxfp8"])
def test_the_loss_is_bfloat16s(rank: RankPool, bfloat16: Course, recipe: str) -> None:
    obstacle = fp8_obstacle(recipe, accelerator.hardware())
    if obstacle is not None:
        pytest.skip(obstacle)
    course = rank.run(train, ONE, model=MODEL, fp8=recipe, updates=UPDATES)[0]
    assert course.beginning == bfloat16.beginning
    assert course.losses != bfloat16.losses  # it did compute in another precision
    expected, found = (fmean(losses.losses[-LAST:]) for losses in (bfloat16, course))
    off = abs(found / expected - 1)
    assert off <= MAX_DIFFERENCE, f"{recipe}: loss {found:.4f}, bfloat16's {expected:.4f}"

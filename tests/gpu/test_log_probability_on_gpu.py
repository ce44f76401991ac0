"""The chunked log-probabilities of a long row stay below what theory says they need of a GPU's
memory.
"""

from __future__ import annotations

from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context

import pytest
import torch

from tools.benchmarks.log_probability import PASSES, Case, run_once

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device"),
]

CASE = Case(32768, 1024, 32768, 1024, "bfloat16", "cuda")
NUMBERS_PER_TOKEN = 24
"""Statistics, their reduction over ranks, both results and their gradients: float32 [tokens]."""
ALLOCATOR = 1.05
"""Blocks are rounded up."""


def theory(case: Case, passes: str) -> int:
    """Most bytes above the inputs, bfloat16 [T, h] and [V, h]."""
    logits = case.chunk_tokens * case.vocabulary
    held = NUMBERS_PER_TOKEN * 4 * case.tokens + 2 * 4 * logits
    if passes == "forward":
        return held
    rounded = 2 * logits  # the logits' gradient, as the products read it
    of_hidden = 2 * case.tokens * case.hidden
    of_weight = (4 + 2) * case.vocabulary * case.hidden  # summed in float32, rounded once
    return held + rounded + of_hidden + of_weight


@pytest.mark.parametrize("passes", PASSES)
def test_memory_of_a_long_row_is_that_of_two_chunks_and_of_the_gradients(passes: str) -> None:
    bound = ALLOCATOR * theory(CASE, passes)
    assert bound < 4 * CASE.tokens * CASE.vocabulary / 4  # a quarter of the row's logits
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as process:
        once = process.submit(run_once, CASE, "chunked", passes).result()
    assert 0 < once.peak_bytes <= bound

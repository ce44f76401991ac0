"""What hardware can train in FP8: every combination, by the table and in a sentence."""

from __future__ import annotations

from itertools import product

import pytest

from engine.config.fp8 import misfit, size_multiple
from engine.platform.precision import Hardware, fp8_obstacle, offload_obstacle

RECIPES = ("tensorwise", "delayed", "blockwise", "mxfp8")
CAPABILITIES = ((8, 0), (8, 6), (8, 9), (9, 0), (10, 0), (10, 3), (12, 0))
CUDAS = ((11, 8), (12, 0), (12, 1), (12, 8), (12, 9), (13, 0))

# Written out from Transformer Engine's three checks, not computed by rules as the code does.
WORKS = {
    **{(recipe, (8, 9)): (12, 1) for recipe in ("tensorwise", "delayed")},
    **{
        (recipe, capability): (11, 8)
        for recipe in ("tensorwise", "delayed")
        for capability in ((9, 0), (10, 0), (10, 3), (12, 0))
    },
    **{("blockwise", capability): (12, 9) for capability in ((9, 0), (10, 0), (10, 3), (12, 0))},
    **{("mxfp8", capability): (11, 8) for capability in ((10, 0), (10, 3))},
}
"""(recipe, capability) -> the first CUDA version that will do; absent where none does."""


@pytest.mark.parametrize("recipe", RECIPES)
def test_a_recipe_runs_exactly_where_transformer_engine_says_so(recipe):
    for capability, cuda in product(CAPABILITIES, CUDAS):
        least = WORKS.get((recipe, capability))
        works = least is not None and cuda >= least
        obstacle = fp8_obstacle(recipe, Hardware(capability, cuda, transformer_engine=True))
        assert (obstacle is None) == works, (capability, cuda, obstacle)
        assert works or recipe in str(obstacle)


@pytest.mark.parametrize("recipe", RECIPES)
def test_no_gpu_and_no_transformer_engine_are_named(recipe):
    no_gpu = Hardware(None, None, transformer_engine=False)
    assert fp8_obstacle(recipe, no_gpu) == f"{recipe} needs a GPU, found none"
    bare = Hardware((10, 0), (13, 0), transformer_engine=False)
    assert "needs Transformer Engine" in str(fp8_obstacle(recipe, bare))


def test_a_sentence_says_what_was_expected_and_found():
    ampere = Hardware((8, 0), (12, 9), transformer_engine=True)
    assert fp8_obstacle("blockwise", ampere) == (
        "blockwise needs compute capability 9.0 (Hopper) or higher, found 8.0"
    )
    old = Hardware((9, 0), (12, 4), transformer_engine=True)
    assert fp8_obstacle("blockwise", old) == "blockwise needs CUDA 12.9 or higher, found 12.4"


def test_what_is_not_asked_for_has_no_obstacle():
    no_gpu = Hardware(None, None, transformer_engine=False)
    assert fp8_obstacle("none", no_gpu) is None
    assert offload_obstacle(0.0, no_gpu) is None
    assert "expected 0 without a GPU" in str(offload_obstacle(0.5, no_gpu))
    assert offload_obstacle(0.5, Hardware((9, 0), (13, 0), transformer_engine=True)) is None


def test_sizes_that_do_not_fit_are_named():
    sizes = {"hidden columns": 48, "columns of each expert": 40, "absent": 0}
    assert misfit(size_multiple("none"), sizes) is None
    assert misfit(size_multiple("blockwise"), {"hidden columns": 48}) is None
    assert misfit(size_multiple("blockwise"), sizes) == (
        "expected sizes on one rank that 16 divides, found 40 columns of each expert"
    )
    assert "48 hidden columns, 40 columns" in str(misfit(size_multiple("mxfp8"), sizes))

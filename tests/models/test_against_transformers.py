"""Every family computes what transformers computes: logits, and the gradient of every weight.

Ours sees all samples packed into one row, transformers one sample at a time.
"""

from __future__ import annotations

import pytest
from run_program import run_program
from small_models import MODELS

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def found():
    return run_program("against_transformers")


@pytest.mark.parametrize("model", MODELS)
def test_logits_of_a_packed_row_equal_each_samples_own(found, model):
    assert found[model]["spread"] > 0.5  # a constant would be easy to meet
    assert found[model]["logits"] < 2e-5


@pytest.mark.parametrize("model", MODELS)
def test_every_gradient_equals_theirs(found, model):
    distances, sizes = found[model]["gradients"], found[model]["sizes"]
    idle = [name for name, size in sizes.items() if size == 0 and ".experts." not in name]
    assert not idle and max(sizes.values()) > 0.1
    assert {name: far for name, far in distances.items() if not far < 5e-6} == {}


@pytest.mark.parametrize("model", MODELS)
def test_a_checkpoint_comes_back_bit_for_bit_under_the_same_names(found, model):
    for difference in ("not in ours", "not in theirs", "changed", "changed when fused"):
        assert found[model][difference] == []

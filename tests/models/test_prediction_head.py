"""The multi-token prediction head equals one written in plain torch, depth by depth."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from run_program import run_program
from small_models import PREDICTING

from engine.models.mtp import ahead_of, tokens_ahead
from engine.parallel.context_slices import slice_of


@pytest.fixture(scope="module")
def found():
    return run_program("prediction_head")


@pytest.mark.slow
@pytest.mark.parametrize("case", PREDICTING)
def test_log_probabilities_of_each_depth(found, case):
    distances = found[case]["log-probabilities"]
    assert len(distances) == 1 + PREDICTING[case][1]
    assert max(distances) < 2e-5


@pytest.mark.slow
@pytest.mark.parametrize("case", PREDICTING)
def test_every_gradient_of_head_and_trunk(found, case):
    distances, sizes = found[case]["gradients"], found[case]["sizes"]
    assert not [name for name, size in sizes.items() if size == 0 and ".experts." not in name]
    assert {name: far for name, far in distances.items() if not far < 5e-6} == {}


@pytest.mark.slow
@pytest.mark.parametrize("case", PREDICTING)
def test_the_experts_bias_counts_real_tokens_only_and_moves_against_the_load(found, case):
    assert found[case]["counts"] == found[case]["their counts"]
    assert found[case]["biases moved wrongly"] == 0


@pytest.mark.slow
@pytest.mark.parametrize("case", PREDICTING)
def test_a_checkpoint_with_head_and_copies_comes_back_bit_for_bit(found, case):
    assert found[case]["changed"] == []


@given(
    chunks=st.lists(st.integers(1, 4), min_size=1, max_size=5),
    ranks=st.integers(1, 3),
    distance=st.integers(0, 4),
)
def test_tokens_ahead_stay_within_the_sample_on_every_context_rank(chunks, ranks, distance):
    lengths = [2 * ranks * chunk for chunk in chunks]
    bounds = torch.tensor([0, *lengths]).cumsum(0).int()
    row = torch.arange(1, sum(lengths) + 1)
    expected = torch.cat(
        [
            torch.cat(
                [sample[distance:], torch.zeros(min(distance, len(sample)), dtype=torch.long)]
            )
            for sample in row.split(lengths)
        ]
    )
    assert tokens_ahead(row[None], bounds, distance)[0].equal(expected)
    for rank in range(ranks):
        held = slice_of(bounds, len(row), rank, ranks)
        assert ahead_of(held, row[None], bounds, distance)[0].equal(expected[held])

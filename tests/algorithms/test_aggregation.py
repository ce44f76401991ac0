"""Token weights and the next-token loss."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from engine.algorithms.aggregation import (
    sequence_mean_weights,
    token_mean_weights,
    weighted_sum,
)
from engine.algorithms.next_token import next_token_loss


@given(st.lists(st.integers(1, 5000), min_size=1, max_size=50))
def test_both_weightings_sum_to_one_over_the_minibatch(lengths: list[int]) -> None:
    counts = torch.tensor(lengths)
    for per_sample in (
        sequence_mean_weights(lengths, len(lengths)),
        token_mean_weights(lengths, sum(lengths)),
    ):
        assert (per_sample.double() * counts).sum().item() == pytest.approx(1.0, rel=1e-6)


def test_sequence_mean_is_the_mean_over_samples_of_the_mean_over_tokens() -> None:
    weights = sequence_mean_weights([2, 3], 2).repeat_interleave(torch.tensor([2, 3]))
    values = torch.tensor([1.0, 3.0, 10.0, 20.0, 30.0])
    torch.testing.assert_close(weighted_sum(values, weights), torch.tensor((2.0 + 20.0) / 2))


def test_a_sample_without_tokens_weighs_nothing() -> None:
    assert sequence_mean_weights([0, 4], 2).tolist() == [0.0, 0.125]


def test_next_token_loss_is_the_mean_over_counted_tokens() -> None:
    logp = torch.tensor([-1.0, math.nan, -3.0, -math.inf], requires_grad=True)
    weights = torch.tensor([0.5, 0.0, 0.5, 0.0])
    loss, metrics = next_token_loss(logp, weights)
    loss.backward()
    assert loss.item() == 2.0 == metrics["loss"].item()
    assert logp.grad is not None
    assert logp.grad.tolist() == [-0.5, 0.0, -0.5, 0.0]

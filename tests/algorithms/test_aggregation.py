"""Token weights and the next-token loss."""

from __future__ import annotations

import math
from types import SimpleNamespace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from engine.algorithms.aggregation import (
    means_over_tokens,
    sequence_mean_weights,
    token_mean_weights,
    weighted_sum,
)
from engine.algorithms.next_token import next_token, next_token_loss


@given(st.lists(st.integers(1, 5000), min_size=1, max_size=50))
def test_both_weightings_sum_to_one_over_the_minibatch(lengths: list[int]) -> None:
    counts = torch.tensor(lengths)
    for per_sample in (
        sequence_mean_weights(lengths, len(lengths)),
        token_mean_weights(lengths, sum(lengths)),
    ):
        weights = torch.tensor(per_sample, dtype=torch.float64)
        assert (weights * counts).sum().item() == pytest.approx(1.0)


def test_sequence_mean_is_the_mean_over_samples_of_the_mean_over_tokens() -> None:
    weights = torch.tensor(sequence_mean_weights([2, 3], 2))
    weights = weights.repeat_interleave(torch.tensor([2, 3]))
    values = torch.tensor([1.0, 3.0, 10.0, 20.0, 30.0])
    torch.testing.assert_close(weighted_sum(values, weights), torch.tensor((2.0 + 20.0) / 2))


def test_a_sample_without_tokens_weighs_nothing() -> None:
    assert sequence_mean_weights([0, 4], 2) == [0.0, 0.125]


def test_next_token_loss_is_the_mean_over_counted_tokens() -> None:
    logp = torch.tensor([-1.0, math.nan, -3.0, -math.inf], requires_grad=True)
    weights = torch.tensor([0.5, 0.0, 0.5, 0.0])
    loss, metrics = next_token_loss(logp, weights)
    loss.backward()
    assert loss.item() == 2.0 == metrics["loss"].item()
    assert logp.grad is not None
    assert logp.grad.tolist() == [-0.5, 0.0, -0.5, 0.0]
    of_row, _ = next_token(SimpleNamespace(logp=logp), SimpleNamespace(weights=weights))
    assert of_row.item() == 2.0


def test_summed_metrics_become_means_where_they_are_of_tokens() -> None:
    summed = {"loss": 3.0, "kl": 1.0, "entropy": 8.0, "gradient_norm": 5.0, "weight": 4.0}
    expected = {"loss": 3.0, "kl": 0.25, "entropy": 2.0, "gradient_norm": 5.0}
    assert means_over_tokens(summed) == expected
    nothing = {"ratio": 0.0, "loss": 0.0, "weight": 0.0}
    assert means_over_tokens(nothing) == {"ratio": 0.0, "loss": 0.0}

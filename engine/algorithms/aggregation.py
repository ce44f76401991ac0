"""Token weights, and weighted sums of per-token losses and metrics.

The weightings return one weight per sample, the same for each of its response tokens; a packed row
spreads it over them (``PackedRow.spread``) and puts 0 everywhere else. Because the divisor is that
of the whole minibatch, the weighted sums of its microbatches and ranks simply add up.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

TOKEN_METRICS = ("ratio", "clip_fraction", "kl", "entropy")
"""Metrics of a loss that say something of the average token."""


def sequence_mean_weights(response_lengths: Sequence[int], samples: float) -> list[float]:
    """Return 1 / (samples * |o_i|): the mean over samples of the mean over tokens.

    The averaging of GRPO's objective (DeepSeekMath, arXiv 2402.03300, eq. 3).

    Args:
        response_lengths: |o_i| of some of the minibatch's samples.
        samples: number of samples in the whole minibatch, over all microbatches and ranks.
    Returns:
        One weight a sample; 0 for a sample without response tokens.
    """
    return [1.0 / (samples * length) if length else 0.0 for length in response_lengths]


def token_mean_weights(response_lengths: Sequence[int], tokens: float) -> list[float]:
    """Return 1 / tokens for every sample: the mean over tokens, as in next-token training.

    Args:
        response_lengths: |o_i| of some of the minibatch's samples.
        tokens: number of response tokens in the whole minibatch, over all microbatches and ranks.
    """
    return [1.0 / tokens] * len(response_lengths)


def weighted_only(weights: Tensor, *values: Tensor) -> tuple[Tensor, ...]:
    """Return ``values`` with 0 wherever the weight is 0.

    Do this before any exponential: 0 * inf is NaN, in the value and again in the gradient.
    """
    weightless = weights == 0
    return tuple(value.masked_fill(weightless, 0.0) for value in values)


def weighted_sum(values: Tensor, weights: Tensor) -> Tensor:
    """Return the scalar sum of weight * value over the tokens whose weight is not 0."""
    (values,) = weighted_only(weights, values)
    return (values * weights).sum()


def means_over_tokens(metrics: Mapping[str, float]) -> dict[str, float]:
    """Return a loss's summed metrics with those of :data:`TOKEN_METRICS` as weighted means.

    A loss returns sums of weight * value, which add up over microbatches and ranks. Where weights
    do not sum to 1 (Dr. GRPO, RLOO) a mean is such a sum divided by the metric ``weight``, the sum
    of the weights; it is left out of the result.

    Args:
        metrics: sums over all rows of an update, or their means over updates.
    """
    weight = metrics["weight"]
    return {
        name: value / weight if name in TOKEN_METRICS and weight else value
        for name, value in metrics.items()
        if name != "weight"
    }

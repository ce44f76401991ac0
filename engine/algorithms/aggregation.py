"""How the losses of single tokens become one number: the weight of each token.

The two weightings return one weight per sample, the same for each of its response tokens; a packed
row spreads it over them (``PackedRow.spread``) and puts 0 everywhere else. Because the divisor is
that of the whole minibatch, the weighted sums of its microbatches and ranks simply add up.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def sequence_mean_weights(response_lengths: Sequence[int], samples: int) -> Tensor:
    """Return 1 / (samples * |o_i|): the mean over samples of the mean over tokens.

    The averaging of GRPO's objective (DeepSeekMath, arXiv 2402.03300, eq. 3).

    Args:
        response_lengths: |o_i| of some of the minibatch's samples.
        samples: number of samples in the whole minibatch, over all microbatches and ranks.
    Returns:
        [S] float32 on the CPU; 0 for a sample without response tokens.
    """
    return torch.tensor(
        [1.0 / (samples * length) if length else 0.0 for length in response_lengths],
        dtype=torch.float32,
    )


def token_mean_weights(response_lengths: Sequence[int], tokens: int) -> Tensor:
    """Return 1 / tokens for every sample: the mean over tokens, as next-token training wants it.

    Args:
        response_lengths: |o_i| of some of the minibatch's samples.
        tokens: number of response tokens in the whole minibatch, over all microbatches and ranks.
    Returns:
        [S] float32 on the CPU.
    """
    return torch.full((len(response_lengths),), 1.0 / tokens, dtype=torch.float32)


def weighted_only(weights: Tensor, *values: Tensor) -> tuple[Tensor, ...]:
    """Return ``values`` with 0 wherever the weight is 0.

    Do this before any exponential: 0 * inf is NaN, in the value and again in the gradient.
    """
    counts = weights != 0
    return tuple(torch.where(counts, value, torch.zeros_like(value)) for value in values)


def weighted_sum(values: Tensor, weights: Tensor) -> Tensor:
    """Return the scalar sum of weight * value over the tokens whose weight is not 0."""
    (values,) = weighted_only(weights, values)
    return (values * weights).sum()

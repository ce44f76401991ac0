"""GRPO, Group Relative Policy Optimization: the algorithm of DeepSeek-R1-Zero.

DeepSeekMath (arXiv 2402.03300), eq. 3 and 4. Of G answers o_i to one question, with rewards r_i,
it maximises

    1/G sum_i 1/|o_i| sum_t ( min(ratio_it A_i, clip(ratio_it, 1 - eps, 1 + eps) A_i) - beta KL_it )

    A_i = (r_i - mean(r)) / std(r)      ratio_it = pi(o_it) / pi_old(o_it)      KL_it: k3

DeepSeek-R1 (arXiv 2501.12948 v1, eq. 1 to 3) has the same advantages and KL, but writes one ratio
for each answer, pi(o_i) / pi_old(o_i), and no mean over its tokens; here the ratio is the token's.

Defaults: beta = 0.001 is R1-Zero's (DeepSeekMath: 0.04). Neither DeepSeekMath nor R1-Zero's
settings give an epsilon; 0.2 is PPO's (arXiv 1707.06347, table 1). R1's first stage of
reinforcement learning takes 10 (``clip_low: 10``, ``clip_high: 10``): ratios of answers that are
better than their group are bounded by 11, those of the others (A < 0) by nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from engine.algorithms.advantages import group_advantages
from engine.algorithms.aggregation import sequence_mean_weights
from engine.algorithms.algorithm import BatchSizes
from engine.algorithms.clipped import ClippedAlgorithm
from engine.algorithms.kl import KlCoefficient

if TYPE_CHECKING:
    from torch import Tensor


class Grpo(ClippedAlgorithm):
    """GRPO: advantages relative to the group, clipped ratios, mean over samples, KL in the loss."""

    kl_coefficient: KlCoefficient = 0.001

    def advantages(self, rewards: Tensor, groups: Tensor) -> Tensor:
        """Return (r - mean) / std within each group; 0 where all rewards of a group are equal."""
        return group_advantages(rewards, groups)

    def token_weights(self, lengths: Sequence[int], sizes: BatchSizes) -> list[float]:
        """Return minibatches / (samples * |o_i|): the mean over samples of the mean over tokens."""
        return sequence_mean_weights(lengths, sizes.samples / sizes.minibatches)


ALGORITHM = Grpo

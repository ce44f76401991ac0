"""GSPO, Group Sequence Policy Optimization: one ratio per answer.

Zheng et al., arXiv 2507.18071, eq. 5 to 7. A reward belongs to a whole answer, so one ratio per
answer is clipped, the geometric mean of its tokens' ratios:

    1/G sum_i min(s_i A_i, clip(s_i, 1 - low, 1 + high) A_i)

    s_i = (pi(o_i) / pi_old(o_i))^(1/|o_i|) = exp(1/|o_i| sum_t log(pi(o_it) / pi_old(o_it)))

with GRPO's advantages. In a mixture of experts the ratio of a single token jumps when the router
sends it to other experts; the mean over an answer does not.

Defaults: low = 3e-4 and high = 4e-4 of the paper's experiments, much narrower than for ratios of
tokens because a mean over an answer moves little. The paper leaves the KL term out.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from engine.algorithms.advantages import group_advantages
from engine.algorithms.aggregation import sequence_mean_weights
from engine.algorithms.algorithm import Algorithm, BatchSizes
from engine.algorithms.policy_loss import (
    ClipHigh,
    ClipLow,
    PolicyLoss,
    clipped_ratio_loss,
    importance_ratio,
)

if TYPE_CHECKING:
    from torch import Tensor


class Gspo(Algorithm):
    """GSPO: one length-normalised ratio for each answer, clipped as a whole, no KL."""

    clip_low: ClipLow = 3e-4
    clip_high: ClipHigh = 4e-4

    def advantages(self, rewards: Tensor, groups: Tensor) -> Tensor:
        """Return (r - mean) / std within each group, eq. 6."""
        return group_advantages(rewards, groups)

    def token_weights(self, lengths: Sequence[int], sizes: BatchSizes) -> list[float]:
        """Return minibatches / (samples * |o_i|): an answer's tokens share its one loss evenly."""
        return sequence_mean_weights(lengths, sizes.samples / sizes.minibatches)

    def policy_loss(
        self,
        logp: Tensor,
        old_logp: Tensor,
        advantages: Tensor,
        sample_mean: Callable[[Tensor], Tensor],
    ) -> PolicyLoss:
        """Return the clipped loss of each token's sample; the ratio is the sample's, too."""
        ratio = importance_ratio(sample_mean(logp - old_logp.detach()))
        return clipped_ratio_loss(
            ratio, advantages, clip_low=self.clip_low, clip_high=self.clip_high
        )


ALGORITHM = Gspo

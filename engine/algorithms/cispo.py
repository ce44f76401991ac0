"""CISPO, Clipped IS-weight Policy Optimization: REINFORCE with clipped importance weights.

MiniMax-M1 (arXiv 2506.13585), section 3.1, eq. 4 and 5. PPO's clip stops the gradient of a token
whose ratio has moved too far; rare tokens that open a new line of reasoning ("However", "Wait") are
the first. CISPO is REINFORCE with an importance weight, and bounds the weight instead:

    1 / sum_i |o_i| * sum_i sum_t sg(clip(ratio_it, 1 - low, 1 + high)) A_i log pi(o_it)

where sg stops the gradient: every token has one, in the direction of its log-probability.
Advantages are GRPO's; there is no KL term. The paper also samples dynamically and punishes length,
as DAPO does; neither is part of this class. The metric ``clip_fraction`` is the share of tokens
whose weight was bounded and whose advantage is not 0. Only the gradient of the loss has a meaning:
its value does not fall as rewards rise.

Defaults: the paper bounds weights only from above (low = 1 bounds nothing). It says that high was
tuned, and no number; 4, so no weight above 5, is ours.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from engine.algorithms.advantages import group_advantages
from engine.algorithms.aggregation import token_mean_weights
from engine.algorithms.algorithm import Algorithm, BatchSizes
from engine.algorithms.policy_loss import ClipHigh, ClipLow, PolicyLoss, importance_ratio

if TYPE_CHECKING:
    from torch import Tensor


class Cispo(Algorithm):
    """CISPO: REINFORCE with bounded importance weights, mean over tokens, no KL."""

    clip_low: ClipLow = 1.0
    clip_high: ClipHigh = 4.0

    def advantages(self, rewards: Tensor, groups: Tensor) -> Tensor:
        """Return (r - mean) / std within each group."""
        return group_advantages(rewards, groups)

    def token_weights(self, lengths: Sequence[int], sizes: BatchSizes) -> list[float]:
        """Return minibatches / tokens: the mean over all tokens."""
        return token_mean_weights(lengths, sizes.tokens / sizes.minibatches)

    def policy_loss(
        self,
        logp: Tensor,
        old_logp: Tensor,
        advantages: Tensor,
        sample_mean: Callable[[Tensor], Tensor],
    ) -> PolicyLoss:
        """Return -weight * A * logp of each token; only ``logp`` itself carries the gradient."""
        advantages = advantages.detach()
        ratio = importance_ratio(logp.detach() - old_logp.detach())
        weight = ratio.clamp(1.0 - self.clip_low, 1.0 + self.clip_high)
        return PolicyLoss(
            loss=-weight * advantages * logp,
            ratio=ratio,
            clipped=(weight != ratio) & (advantages != 0),
        )


ALGORITHM = Cispo

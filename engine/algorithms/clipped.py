"""Base class of the algorithms with PPO's clipped ratio per token, and its two options."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from engine.algorithms.algorithm import Algorithm
from engine.algorithms.policy_loss import ClipHigh, ClipLow, PolicyLoss, clipped_policy_loss

if TYPE_CHECKING:
    from torch import Tensor


class ClippedAlgorithm(Algorithm):
    """An algorithm with the loss -min(ratio A, clip(ratio, 1 - low, 1 + high) A) per token.

    The defaults are PPO's epsilon (arXiv 1707.06347, table 1) on both sides.
    """

    clip_low: ClipLow = 0.2
    clip_high: ClipHigh = 0.2

    def policy_loss(
        self,
        logp: Tensor,
        old_logp: Tensor,
        advantages: Tensor,
        sample_mean: Callable[[Tensor], Tensor],
    ) -> PolicyLoss:
        """Return PPO's clipped loss of each token."""
        return clipped_policy_loss(
            logp, old_logp, advantages, clip_low=self.clip_low, clip_high=self.clip_high
        )

"""PPO's clipped policy loss per token, which GRPO and most of its variants use."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, NamedTuple

from pydantic import Field

if TYPE_CHECKING:
    from torch import Tensor

ClipLow = Annotated[
    float, Field(gt=0, description="epsilon below: ratios count down to 1 - clip_low, if positive")
]
"""An option: how far below 1 a ratio counts. A ratio is positive: 1 or more bounds nothing."""
ClipHigh = Annotated[
    float, Field(gt=0, description="epsilon above: ratios count up to 1 + clip_high")
]
"""An option: how far above 1 a ratio counts."""


class PolicyLoss(NamedTuple):
    """The policy's part of a loss, per token; all of one shape."""

    loss: Tensor  # carries the gradient
    ratio: Tensor  # policy / old policy as the algorithm compares them, detached
    clipped: Tensor  # bool: the bound changed this token's gradient


def clipped_policy_loss(
    logp: Tensor, old_logp: Tensor, advantages: Tensor, *, clip_low: float, clip_high: float
) -> PolicyLoss:
    """Return -min(ratio * A, clip(ratio, 1 - low, 1 + high) * A), ratio = exp(logp - old_logp).

    PPO's objective (arXiv 1707.06347, eq. 7), negated because losses are minimised, with an epsilon
    of its own on each side (DAPO, arXiv 2503.14476, eq. 8). A clipped token has no gradient.

    Args:
        logp: log-probabilities under the policy; the only argument that gets a gradient.
        old_logp: the same under the policy that sampled the tokens.
        advantages: one per token, constant over a sample.
        clip_low: epsilon below 1. From 1 on it bounds nothing.
        clip_high: epsilon above 1.
    """
    return clipped_ratio_loss(
        (logp - old_logp.detach()).exp(), advantages, clip_low=clip_low, clip_high=clip_high
    )


def clipped_ratio_loss(
    ratio: Tensor, advantages: Tensor, *, clip_low: float, clip_high: float
) -> PolicyLoss:
    """Return the loss of :func:`clipped_policy_loss` for given ratios, which carry the gradient."""
    advantages = advantages.detach()
    free = ratio * advantages
    bounded = ratio.clamp(1.0 - clip_low, 1.0 + clip_high) * advantages
    return PolicyLoss(
        loss=-free.minimum(bounded),
        ratio=ratio.detach(),
        clipped=(bounded < free).detach(),
    )

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


LARGEST_LOG_RATIO = 20.0
"""Log-ratios beyond it count as this much, in either direction; exp(20) is 4.9e8."""


class PolicyLoss(NamedTuple):
    """The policy's part of a loss, per token; all of one shape."""

    loss: Tensor  # carries the gradient
    ratio: Tensor  # policy / old policy as the algorithm compares them, detached
    clipped: Tensor  # bool: the bound changed this token's gradient


def importance_ratio(log_ratio: Tensor) -> Tensor:
    """Return exp(log_ratio), of log-ratios limited to :data:`LARGEST_LOG_RATIO` on both sides.

    The limit keeps the ratio finite: float32's exp is infinite from 89 on, and infinity times an
    advantage of 0 is NaN. Beyond the limit the ratio is constant and has no gradient.

    Args:
        log_ratio: log(policy / old policy), of any shape; carries the gradient.
    """
    return log_ratio.clamp(-LARGEST_LOG_RATIO, LARGEST_LOG_RATIO).exp()


def clipped_policy_loss(
    logp: Tensor, old_logp: Tensor, advantages: Tensor, *, clip_low: float, clip_high: float
) -> PolicyLoss:
    """Return -min(ratio * A, clip(ratio, 1 - low, 1 + high) * A), ratio = exp(logp - old_logp).

    PPO's objective (arXiv 1707.06347, eq. 7), negated because losses are minimised, with an epsilon
    of its own on each side (DAPO, arXiv 2503.14476, eq. 8). A clipped token has no gradient. The
    ratio is that of :func:`importance_ratio`.

    Args:
        logp: log-probabilities under the policy; the only argument that gets a gradient.
        old_logp: the same under the policy that sampled the tokens.
        advantages: one per token, constant over a sample.
        clip_low: epsilon below 1. From 1 on it bounds nothing.
        clip_high: epsilon above 1.
    """
    ratio = importance_ratio(logp - old_logp.detach())
    return clipped_ratio_loss(ratio, advantages, clip_low=clip_low, clip_high=clip_high)


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

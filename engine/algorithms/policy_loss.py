"""The clipped policy gradient of PPO, which GRPO keeps."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor


class PolicyLoss(NamedTuple):
    """Per-token results of :func:`clipped_policy_loss`, all of its arguments' shape."""

    loss: Tensor  # carries the gradient
    ratio: Tensor  # policy / old policy, detached
    clipped: Tensor  # bool: the clip won, so this token sends no gradient


def clipped_policy_loss(
    logp: Tensor, old_logp: Tensor, advantages: Tensor, *, clip: float
) -> PolicyLoss:
    """Return -min(ratio * A, clip(ratio, 1 - eps, 1 + eps) * A), ratio = exp(logp - old_logp).

    The first term of GRPO's objective (DeepSeekMath, arXiv 2402.03300, eq. 3), negated because
    losses are minimised; it is PPO's (arXiv 1707.06347, eq. 7).

    Args:
        logp: log-probabilities under the policy; the only argument that gets a gradient.
        old_logp: the same under the policy that sampled the tokens.
        advantages: one per token, constant over a sample.
        clip: eps. DeepSeek-R1 (v2) uses 10 in its first RL stage, which bounds from above only.
    """
    ratio = torch.exp(logp - old_logp.detach())
    advantages = advantages.detach()
    free = ratio * advantages
    bounded = ratio.clamp(1.0 - clip, 1.0 + clip) * advantages
    return PolicyLoss(
        loss=-torch.minimum(free, bounded),
        ratio=ratio.detach(),
        clipped=(bounded < free).detach(),
    )

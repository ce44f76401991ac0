"""Group-relative advantages: GRPO's substitute for a learned value function."""

from __future__ import annotations

import torch
from torch import Tensor

from engine.errors import RunError


def group_advantages(rewards: Tensor, groups: Tensor) -> Tensor:
    """Return (r - mean) / std within each group (DeepSeekMath, arXiv 2402.03300, section 4.1.2).

    The paper does not say which standard deviation; this is the population one (divided by G, not
    G - 1), so that the advantages of a group have a mean square of exactly 1 whatever its size. No
    epsilon is added: a group whose rewards are all equal carries no signal and gets exactly 0.

    Args:
        rewards: [N] float, one per sample, finite.
        groups: [N] integer, the group each sample belongs to; in any order, of any sizes.
    Returns:
        [N], dtype and device of ``rewards``.
    Raises:
        RunError: a reward is NaN or infinite.
    """
    _check(rewards, groups)
    exact = rewards.double()
    advantages = torch.zeros_like(exact)
    for group in groups.unique():
        members = groups == group
        values = exact[members]
        # Compared, not measured: rounding in the mean would give equal rewards a spread of 1e-17,
        # and dividing by it would turn noise into advantages of size 1.
        if values.min() < values.max():
            advantages[members] = (values - values.mean()) / values.std(correction=0)
    return advantages.to(rewards.dtype)


def zero_variance_groups(rewards: Tensor, groups: Tensor) -> int:
    """Count the groups whose rewards are all equal, so that every advantage in them is 0.

    Arguments and errors as in :func:`group_advantages`.
    """
    _check(rewards, groups)
    return sum(
        int(values.min() == values.max())
        for values in (rewards[groups == group] for group in groups.unique())
    )


def _check(rewards: Tensor, groups: Tensor) -> None:
    if rewards.dim() != 1 or rewards.shape != groups.shape:
        raise ValueError(
            f"rewards and groups must both be [N]: {tuple(rewards.shape)}, {tuple(groups.shape)}"
        )
    bad = (~torch.isfinite(rewards)).nonzero()
    if len(bad):
        where = int(bad[0])
        raise RunError(
            f"the reward of sample {where} (group {int(groups[where])}) is {rewards[where].item()};"
            " rewards must be finite numbers"
        )

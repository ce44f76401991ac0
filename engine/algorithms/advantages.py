"""Compute advantages: each sample's reward relative to a baseline of its group or rollout.

Each function takes the rewards of a whole rollout. Equal rewards get exactly 0:
they are compared, not subtracted from their mean, because rounding in the mean would give equal
rewards a spread of 1e-17, and dividing by it would turn noise into advantages of size 1.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from engine.errors import RunError

if TYPE_CHECKING:
    from torch import Tensor


def group_advantages(rewards: Tensor, groups: Tensor) -> Tensor:
    """Return (r - mean) / std within each group (DeepSeekMath, arXiv 2402.03300, section 4.1.2).

    The paper does not say which standard deviation; this is the population one (divided by G, not
    G - 1), so that the advantages of a group have a mean square of exactly 1 whatever its size. No
    epsilon is added.

    Args:
        rewards: [N] float, one per sample, finite.
        groups: [N] integer, the group each sample belongs to; in any order, of any sizes.
    Returns:
        [N], dtype and device of ``rewards``; 0 in a group whose rewards are all equal.
    Raises:
        RunError: a reward is NaN or infinite.
    """
    return _in_groups(_standardised, rewards, groups)


def centred_rewards(rewards: Tensor, groups: Tensor) -> Tensor:
    """Return r - mean within each group (Dr. GRPO, arXiv 2503.20783, section 3.2).

    Arguments, result and errors as in :func:`group_advantages`.
    """
    return _in_groups(lambda values: values - values.mean(), rewards, groups)


def leave_one_out_advantages(rewards: Tensor, groups: Tensor) -> Tensor:
    """Return r_i minus the mean reward of the group's other samples (RLOO, arXiv 2402.14740).

    A group of one sample has no others to compare with: 0. Arguments, result and errors as in
    :func:`group_advantages`.
    """

    def against_others(values: Tensor) -> Tensor:
        return values - (values.sum() - values) / (len(values) - 1)

    return _in_groups(against_others, rewards, groups)


def global_advantages(rewards: Tensor, groups: Tensor, *, group_baseline: bool = False) -> Tensor:
    """Return (r - mean) / std over the whole rollout (REINFORCE++, arXiv 2501.03262).

    Mean and standard deviation are over samples, each counted once whatever its length; the paper's
    are over the tokens of the batch.

    Args:
        rewards, groups: as in :func:`group_advantages`.
        group_baseline: subtract each group's mean first ("REINFORCE++ w/ baseline"); the standard
            deviation is then that of the differences.
    Returns:
        As in :func:`group_advantages`; all 0 where all are equal.
    """
    if group_baseline:
        rewards = centred_rewards(rewards, groups)
    return _in_groups(_standardised, rewards, groups.new_zeros(groups.shape))


def zero_variance_groups(rewards: Tensor, groups: Tensor) -> int:
    """Count the groups whose rewards are all equal, so that every advantage in them is 0.

    Arguments and errors as in :func:`group_advantages`.
    """
    _check(rewards, groups)
    return sum(
        int(values.min() == values.max())
        for values in (rewards[groups == group] for group in groups.unique())
    )


def _standardised(values: Tensor) -> Tensor:
    return (values - values.mean()) / values.std(correction=0)


def _in_groups(of_group: Callable[[Tensor], Tensor], rewards: Tensor, groups: Tensor) -> Tensor:
    """Apply ``of_group`` in float64 to each group whose rewards are not all equal; 0 elsewhere."""
    _check(rewards, groups)
    exact = rewards.double()
    advantages = exact.new_zeros(exact.shape)
    for group in groups.unique():
        members = groups == group
        values = exact[members]
        if values.min() < values.max():
            advantages[members] = of_group(values)
    return advantages.to(rewards.dtype)


def _check(rewards: Tensor, groups: Tensor) -> None:
    if rewards.dim() != 1 or rewards.shape != groups.shape:
        raise ValueError(
            f"rewards and groups must both be [N]: {tuple(rewards.shape)}, {tuple(groups.shape)}"
        )
    bad = (~rewards.isfinite()).nonzero()
    if len(bad):
        where = int(bad[0])
        raise RunError(
            f"the reward of sample {where} (group {int(groups[where])}) is {rewards[where].item()};"
            " rewards must be finite numbers"
        )

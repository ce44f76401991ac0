"""REINFORCE++: one baseline and one scale for the whole batch.

Hu et al., arXiv 2501.03262. A group of a few answers gives a poor estimate of a mean and a worse
one of a standard deviation, and both depend on the answer itself. REINFORCE++ takes them
from the whole batch:

    A_i = (R_i - mean(R)) / std(R)                   over all samples of the rollout

in PPO's clipped objective, averaged over all tokens. The paper normalises the advantages of tokens
over all tokens of the batch, so that a long answer has more part in mean and std than a short one;
here each sample counts once: its tokens have one advantage, because no KL is in the reward. With
``group_baseline`` it is the paper's variant for reasoning, "REINFORCE++ w/ baseline": the group's
mean is subtracted first, and the batch gives the scale only.

Defaults: epsilon 0.2 is PPO's. The paper puts the KL into the reward, token by token, and in the
variant into the loss (k2); ``kl_coefficient`` is the weight of k3 in the loss, 0 by default.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from pydantic import Field

from engine.algorithms.advantages import global_advantages
from engine.algorithms.aggregation import token_mean_weights
from engine.algorithms.algorithm import BatchSizes
from engine.algorithms.clipped import ClippedAlgorithm

if TYPE_CHECKING:
    from torch import Tensor


class ReinforcePlusPlus(ClippedAlgorithm):
    """REINFORCE++: advantages normalised over the whole rollout, mean over tokens, no KL."""

    group_baseline: bool = Field(
        False, description="subtract each group's mean reward before the rollout's scale is taken"
    )

    def advantages(self, rewards: Tensor, groups: Tensor) -> Tensor:
        """Return (r - mean) / std over the whole rollout."""
        return global_advantages(rewards, groups, group_baseline=self.group_baseline)

    def token_weights(self, lengths: Sequence[int], sizes: BatchSizes) -> list[float]:
        """Return minibatches / tokens: the mean over all tokens."""
        return token_mean_weights(lengths, sizes.tokens / sizes.minibatches)


ALGORITHM = ReinforcePlusPlus

"""DAPO, Decoupled Clip and Dynamic Sampling Policy Optimization.

Yu et al., arXiv 2503.14476, eq. 8 to 13. GRPO's group-relative advantages with four changes:

    1 / sum_i |o_i| * sum_i sum_t min(ratio_it A_i, clip(ratio_it, 1 - low, 1 + high) A_i)

- clip-higher: 1 + high is farther away than 1 - low, so that unlikely tokens can become likely;
- dynamic sampling: groups whose rewards are all equal are not trained on (``accepts``). Eq. 8 asks
  that some answers of a group, but not all, are correct; here the sum of all rewards of a run is
  compared, before the punishment below: a group that is equally correct, but not equally well
  formatted for instance, is trained on. The paper samples further prompts until the batch is full
  again; that is not done here: the batch of a step gets smaller, and its weights are those of the
  samples that are left;
- mean over tokens: a long answer weighs more than a short one. Eq. 8 averages over one group; here,
  as in the authors' code, the mean is over all tokens of the batch;
- soft overlong punishment (eq. 13), added to the reward of an answer of y tokens, where L_max is
  the longest allowed answer and L_cache = overlong_share * L_max:

      0 for y <= L_max - L_cache,  ((L_max - L_cache) - y) / L_cache above it,  -1 beyond L_max

and no KL term. Defaults are the paper's (section 4.1): low = 0.2, high = 0.28, L_max = 20,480 and
L_cache = 4,096, a share of 0.2. Its rewards are -1 and 1; beside 0 and 1 the punishment weighs
twice as much.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from pydantic import Field

from engine.algorithms.advantages import group_advantages
from engine.algorithms.aggregation import token_mean_weights
from engine.algorithms.algorithm import BatchSizes
from engine.algorithms.clipped import ClippedAlgorithm
from engine.algorithms.policy_loss import ClipHigh

if TYPE_CHECKING:
    from torch import Tensor


class Dapo(ClippedAlgorithm):
    """DAPO: a higher upper clip, mean over tokens, zero-variance groups left out, no KL."""

    clip_high: ClipHigh = 0.28
    overlong_share: float = Field(
        0.2,
        ge=0,
        le=1,
        description="last part of the longest allowed response in which an answer's reward falls "
        "by up to 1; 0 for no such punishment",
    )

    def shaped_rewards(self, rewards: Tensor, lengths: Tensor, max_length: int) -> Tensor:
        """Return the rewards plus the soft overlong punishment, eq. 13: between -1 and 0."""
        cache = self.overlong_share * max_length
        if not cache:
            return rewards
        into_cache = lengths.to(rewards.dtype) - (max_length - cache)
        return rewards - (into_cache / cache).clamp(0.0, 1.0)

    def accepts(self, rewards: Tensor) -> bool:
        """Return whether the group's rewards differ: zero-variance groups have no gradient.

        The rewards are sums over all rewards of the run; eq. 8 looks at correctness alone.
        """
        return bool(rewards.min() < rewards.max())

    def advantages(self, rewards: Tensor, groups: Tensor) -> Tensor:
        """Return (r - mean) / std within each group, eq. 9."""
        return group_advantages(rewards, groups)

    def token_weights(self, lengths: Sequence[int], sizes: BatchSizes) -> list[float]:
        """Return minibatches / tokens: the mean over all tokens."""
        return token_mean_weights(lengths, sizes.tokens / sizes.minibatches)


ALGORITHM = Dapo

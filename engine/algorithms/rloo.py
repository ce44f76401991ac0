"""RLOO, REINFORCE Leave-One-Out: the baseline is the mean reward of the group's other answers.

Ahmadian et al., "Back to Basics" (arXiv 2402.14740), after Kool et al. (2019). The
gradient estimate, for k answers y_i to one prompt, is

    1/k sum_i ( R_i - 1/(k-1) sum_{j != i} R_j ) * grad log pi(y_i)

An answer is one action: log pi(y_i) is the sum of its tokens' log-probabilities, so a token's
weight does not depend on the answer's length, and gradients grow with lengths. That is on-policy,
as in the paper's estimator, in a rollout's first update only: every ratio is 1, and the gradient is
exactly the paper's. Later updates of the same rollout are off-policy; PPO's clipped ratio of each
token stands in for grad log pi there.

Defaults: epsilon 0.2 is PPO's (the paper has none). The paper subtracts beta * log(pi / pi_ref)
from the reward; ``kl_coefficient`` is the weight of k3 in the loss instead, 0 by default.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from engine.algorithms.advantages import leave_one_out_advantages
from engine.algorithms.algorithm import BatchSizes
from engine.algorithms.clipped import ClippedAlgorithm

if TYPE_CHECKING:
    from torch import Tensor


class Rloo(ClippedAlgorithm):
    """RLOO: REINFORCE with the mean reward of the group's other answers as baseline, no KL."""

    def advantages(self, rewards: Tensor, groups: Tensor) -> Tensor:
        """Return r_i minus the mean reward of the other samples of the group."""
        return leave_one_out_advantages(rewards, groups)

    def token_weights(self, lengths: Sequence[int], sizes: BatchSizes) -> list[float]:
        """Return minibatches / samples: the mean over samples of the sum over tokens."""
        return [sizes.minibatches / sizes.samples] * len(lengths)


ALGORITHM = Rloo

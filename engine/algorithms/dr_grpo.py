"""Dr. GRPO, "GRPO Done Right": GRPO without division by lengths and standard deviations.

Liu et al., "Understanding R1-Zero-Like Training" (arXiv 2503.20783), section 3.2. GRPO divides each
answer's loss by its length, so that long wrong answers are punished too little, and each advantage
by the group's standard deviation, so that very easy and very hard questions weigh too much. Here

    1/G sum_i sum_t min(ratio_it A_i, clip(ratio_it, 1 - eps, 1 + eps) A_i),   A_i = r_i - mean(r)

divided by one constant for all answers: as in the authors' code, the longest allowed response.

Defaults: no KL term, as in the paper; epsilon 0.2 is PPO's.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from engine.algorithms.advantages import centred_rewards
from engine.algorithms.algorithm import BatchSizes
from engine.algorithms.clipped import ClippedAlgorithm

if TYPE_CHECKING:
    from torch import Tensor


class DrGrpo(ClippedAlgorithm):
    """Dr. GRPO: GRPO without division by lengths and by standard deviations, no KL."""

    def advantages(self, rewards: Tensor, groups: Tensor) -> Tensor:
        """Return r - mean within each group."""
        return centred_rewards(rewards, groups)

    def token_weights(self, lengths: Sequence[int], sizes: BatchSizes) -> list[float]:
        """Return minibatches / (samples * max_length) for every token, however long its sample."""
        return [sizes.minibatches / (sizes.samples * sizes.max_length)] * len(lengths)


ALGORITHM = DrGrpo

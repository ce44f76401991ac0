"""The parity gate: the trainer's log-probabilities against those the sampler drew its tokens with.

Trainer and servers are different programs on the same weights. If they disagree, the policy that
is improved is not the one that answered, and training drifts without any error; so every rollout
is compared before it is used, and above a limit the run stops.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch.distributed as dist
from torch import Tensor

from engine.errors import RunError
from engine.parallel.groups import counts_its_tokens


@dataclass(frozen=True, order=True)
class Mismatch:
    """The largest disagreement of some tokens.

    Attributes:
        difference: absolute difference of the two log-probabilities, in nats.
        sample: what the sample is called.
        position: index of the token in the response.
        trainer, sampler: the two log-probabilities.
    """

    difference: float
    sample: str
    position: int
    trainer: float
    sampler: float


NOTHING = Mismatch(0.0, "", 0, 0.0, 0.0)


def worst_of(
    names: Sequence[str], trainer: Sequence[Tensor], sampler: Sequence[Tensor]
) -> Mismatch:
    """The largest disagreement among samples; NaN counts as infinite.

    Args:
        names: what each sample is called.
        trainer, sampler: for each sample its response's log-probabilities, float [tokens].
    """
    worst = NOTHING
    for name, ours, theirs in zip(names, trainer, sampler, strict=True):
        if not len(ours):
            continue
        difference = (ours - theirs).abs().nan_to_num(nan=float("inf"), posinf=float("inf"))
        position = int(difference.argmax())
        here = Mismatch(
            float(difference[position]),
            name,
            position,
            float(ours[position]),
            float(theirs[position]),
        )
        worst = max(worst, here)
    return worst


def over_ranks(mine: Mismatch) -> Mismatch:
    """The worst of all ranks, on all ranks. Only ranks that hold log-probabilities have a say."""
    found: list[Mismatch] = [NOTHING] * dist.get_world_size()
    dist.all_gather_object(found, mine if counts_its_tokens() else NOTHING)
    return max(found)


def hold(worst: Mismatch, limit: float, version: int) -> None:
    """Pass silently if ``worst`` is within ``limit`` nats.

    Raises:
        RunError: it is not; names sample, position and both values.
    """
    if worst.difference <= limit:
        return
    raise RunError(
        f"trainer and sampler disagree at weight version {version}: response token "
        f"{worst.position} of {worst.sample} has log-probability {worst.trainer:.6f} in the "
        f"trainer and {worst.sampler:.6f} in the sampler; the difference {worst.difference:.2e} "
        f"is above parity.max_logprob_difference = {limit:.1e}"
    )

"""Parity gate: compare the trainer's log-probabilities with the sampler's.

Trainer and servers are different programs on the same weights. If they disagree, the policy that
is improved is not the one that answered, and training drifts without any error; so every rollout
is compared before it is used, and above a limit the run stops.

Left out are tokens behind a routing tie of their sample (``routing_margin``): there the two may
have chosen different experts, and both are right. What is no finite number is never left out.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from math import isfinite

import torch
import torch.distributed as dist
from torch import Tensor

from engine.errors import RunError
from engine.parallel.groups import counts_its_tokens
from engine.training.divergence import Diverged


@dataclass(frozen=True, order=True)
class Mismatch:
    """The largest disagreement of some tokens.

    Attributes:
        difference: absolute difference of the two log-probabilities, in nats.
        sample: what the sample is called.
        position: index of the token in the response.
        trainer, sampler: the two log-probabilities.
    """

    difference: float = 0.0
    sample: str = ""
    position: int = 0
    trainer: float = 0.0
    sampler: float = 0.0


@dataclass(frozen=True)
class Comparison:
    """The agreement of trainer and sampler on some samples.

    Attributes:
        worst: the largest disagreement of the tokens that are compared.
        compared: how many tokens those are.
        left_out: response tokens behind a routing tie.
    """

    worst: Mismatch = Mismatch()
    compared: int = 0
    left_out: int = 0

    @property
    def share_left_out(self) -> float:
        """Share of the response tokens that was not compared; 0 where there are none."""
        return self.left_out / max(1, self.compared + self.left_out)

    def __add__(self, other: Comparison) -> Comparison:
        """Both together."""
        return Comparison(
            max(self.worst, other.worst),
            self.compared + other.compared,
            self.left_out + other.left_out,
        )


def compare(name: str, trainer: Tensor, sampler: Tensor, behind_tie: Tensor) -> Comparison:
    """Compare one sample; where one of the two is not finite, the difference counts as infinite.

    Args:
        name: what the sample is called.
        trainer, sampler: its response's log-probabilities, float [tokens].
        behind_tie: bool [tokens], True for tokens that are left out if both numbers are finite.
    """
    behind_tie = behind_tie & trainer.isfinite() & sampler.isfinite()
    left_out = int(behind_tie.sum())
    if left_out == len(trainer):
        return Comparison(left_out=left_out)
    difference = (trainer - sampler).abs().nan_to_num(nan=float("inf"), posinf=float("inf"))
    difference = difference.masked_fill(behind_tie, -1.0)
    position = int(difference.argmax())
    worst = Mismatch(
        float(difference[position]),
        name,
        position,
        float(trainer[position]),
        float(sampler[position]),
    )
    return Comparison(worst, len(trainer) - left_out, left_out)


def behind_ties(margins: Tensor, bounds: Tensor, tie: float) -> Tensor:
    """Mark the tokens of a packed row at or after a routing tie of their own sample.

    Args:
        margins: float [tokens], see ``routing_margin``.
        bounds: int [samples + 1], where each sample begins and the last one ends.
        tie: margins below it are ties.

    Returns:
        bool [tokens].
    """
    ties = (margins < tie).int()
    parts = [ties[start:end].cummax(0).values for start, end in pairwise(bounds.tolist())]
    return torch.cat(parts).bool()


def over_ranks(mine: Comparison) -> Comparison:
    """Return the comparison of all ranks together, on all ranks.

    Only ranks that hold log-probabilities count.
    """
    found = [Comparison()] * dist.get_world_size()
    dist.all_gather_object(found, mine if counts_its_tokens() else Comparison())
    return sum(found, Comparison())


def hold(worst: Mismatch, limit: float, version: int) -> None:
    """Pass silently if ``worst`` is within ``limit`` nats.

    Raises:
        Diverged: the trainer's is not finite.
        RunError: it is above, or the sampler's is not finite. All name sample and position.
    """
    if worst.difference <= limit:
        return
    token = f"response token {worst.position} of {worst.sample}"
    if not isfinite(worst.trainer):
        raise Diverged(
            f"training diverged before step {version}: the policy at weight version {version} "
            f"gives {token} the log-probability {worst.trainer}, which is not finite; most likely "
            f"earlier updates were too large: lower optimizer.lr",
            start_is_good=False,
        )
    if not isfinite(worst.sampler):
        raise RunError(
            f"the servers computed no finite log-probability at weight version {version}: {token} "
            f"has {worst.sampler} there and {worst.trainer:.6f} in the trainer, so the weights are "
            f"sound and the servers' kernels or memory are at fault; see logs/server-*.log"
        )
    raise RunError(
        f"trainer and sampler disagree at weight version {version}: "
        f"{token} has log-probability {worst.trainer:.6f} in the "
        f"trainer and {worst.sampler:.6f} in the sampler; the difference {worst.difference:.2e} "
        f"is above parity.max_logprob_difference = {limit:.1e}"
    )

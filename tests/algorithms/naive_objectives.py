"""Every algorithm as its paper writes it: one sample and one token at a time, in float64.

Nothing here calls the engine. A rollout holds response tokens only; rows with prompts and junk
between the samples are made by :class:`Row`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor


@dataclass
class Rollout:
    """Samples: their group and reward, and for each of their tokens three log-probabilities."""

    groups: list[int]
    rewards: list[float]
    logp: list[Tensor]  # of each sample, float64 [length]; they ask for gradients
    old: list[Tensor]
    reference: list[Tensor]
    max_length: int

    @property
    def lengths(self) -> list[int]:
        return [len(logp) for logp in self.logp]


def random_rollout(groups: Sequence[int], rewards: Sequence[float], seed: int) -> Rollout:
    """One sample for each of ``groups``, of one to six tokens."""
    generator = torch.Generator().manual_seed(seed)

    def noise(size: int) -> Tensor:
        return torch.randn(size, generator=generator, dtype=torch.float64)

    lengths = torch.randint(1, 7, (len(groups),), generator=generator).tolist()
    old = [-noise(length).abs() for length in lengths]
    return Rollout(
        groups=list(groups),
        rewards=list(rewards),
        logp=[(logp + 0.3 * noise(len(logp))).requires_grad_() for logp in old],
        old=old,
        reference=[logp + 0.5 * noise(len(logp)) for logp in old],
        max_length=7,
    )


@dataclass
class Row:
    """Some samples of a rollout in one row, each behind two tokens of weight 0 that hold junk."""

    rollout: Rollout
    members: Sequence[int]
    sample_advantages: Sequence[float]  # of the whole rollout
    sample_weights: Sequence[float]
    junk: float = math.nan
    with_reference: bool = True
    logp: Tensor = field(init=False)

    def __post_init__(self) -> None:
        self.logp = self._placed([self.rollout.logp[i] for i in self.members], self.junk)

    def _placed(self, values: Sequence[Tensor], between: float) -> Tensor:
        hole = torch.full((2,), between, dtype=torch.float64)
        return torch.cat([part for value in values for part in (hole, value)] + [hole])

    def _spread(self, values: Sequence[float], between: float) -> Tensor:
        lengths = self.rollout.lengths
        parts = [torch.full((lengths[i],), values[i], dtype=torch.float64) for i in self.members]
        return self._placed(parts, between)

    @property
    def old_logp(self) -> Tensor:
        return self._placed([self.rollout.old[i] for i in self.members], self.junk)

    @property
    def reference_logp(self) -> Tensor | None:
        if not self.with_reference:
            return None
        return self._placed([self.rollout.reference[i] for i in self.members], self.junk)

    @property
    def advantages(self) -> Tensor:
        return self._spread(self.sample_advantages, self.junk)

    @property
    def weights(self) -> Tensor:
        return self._spread(self.sample_weights, 0.0)

    def sample_mean(self, values: Tensor) -> Tensor:
        found, start = [], 2
        for i in self.members:
            length = self.rollout.lengths[i]
            found.append(values[start : start + length].mean().expand(length))
            start += length + 2
        return self._placed(found, 0.0)


def naive_advantages(
    name: str, rewards: Sequence[float], groups: Sequence[int], *, group_baseline: bool = False
) -> list[float]:
    """Each sample's advantage, from the formula of its paper."""
    if group_baseline:
        means = {g: _mean_of_group(g, rewards, groups) for g in groups}
        rewards = [reward - means[g] for reward, g in zip(rewards, groups, strict=True)]
    found = []
    for i, (reward, group) in enumerate(zip(rewards, groups, strict=True)):
        own = [r for r, g in zip(rewards, groups, strict=True) if g == group]
        others = [r for j, r in enumerate(rewards) if groups[j] == group and j != i]
        if name in ("grpo", "dapo", "gspo", "cispo"):
            found.append(_standardised(reward, own))
        elif name == "dr_grpo":
            found.append(reward - sum(own) / len(own))
        elif name == "rloo":
            found.append(reward - sum(others) / len(others) if others else 0.0)
        else:
            assert name == "reinforce_plus_plus"
            found.append(_standardised(reward, rewards))
    return found


def _mean_of_group(group: int, rewards: Sequence[float], groups: Sequence[int]) -> float:
    own = [r for r, g in zip(rewards, groups, strict=True) if g == group]
    return sum(own) / len(own)


def _standardised(value: float, among: Sequence[float]) -> float:
    mean = sum(among) / len(among)
    spread = math.sqrt(sum((other - mean) ** 2 for other in among) / len(among))
    return (value - mean) / spread if max(among) > min(among) else 0.0


def naive_loss(
    name: str, rollout: Rollout, *, clip_low: float, clip_high: float, kl_coefficient: float
) -> Tensor:
    """The loss of the whole rollout; its gradient goes to ``rollout.logp``."""
    advantages = naive_advantages(name, rollout.rewards, rollout.groups)
    low, high = 1 - clip_low, 1 + clip_high
    samples, tokens = len(rollout.logp), sum(rollout.lengths)
    objective = torch.zeros((), dtype=torch.float64)
    for i, advantage in enumerate(advantages):
        logp, old, reference = rollout.logp[i], rollout.old[i], rollout.reference[i]
        length = len(logp)
        divisor = {
            "grpo": samples * length,
            "gspo": samples * length,
            "dr_grpo": samples * rollout.max_length,
            "rloo": samples,
        }.get(name, tokens)
        of_answer = torch.ones((), dtype=torch.float64)
        for t in range(length):
            of_answer = of_answer * (torch.exp(logp[t]) / torch.exp(old[t]))
        for t in range(length):
            ratio = torch.exp(logp[t]) / torch.exp(old[t])
            if name == "gspo":
                ratio = of_answer ** (1 / length)
            if name == "cispo":
                gain = min(max(ratio.item(), low), high) * advantage * logp[t]
            elif advantage >= 0:
                gain = advantage * (ratio if ratio <= high else high)
            else:
                gain = advantage * (ratio if ratio >= low else low)
            against = torch.exp(reference[t]) / torch.exp(logp[t])
            penalty = kl_coefficient * (against - torch.log(against) - 1)
            objective = objective + (gain - penalty) / divisor
    return -objective

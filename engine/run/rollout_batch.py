"""Make an algorithm's minibatches of a stored rollout, on this trainer rank."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from engine.algorithms.advantages import zero_variance_groups
from engine.algorithms.aggregation import means_over_tokens
from engine.algorithms.algorithm import Algorithm, BatchSizes
from engine.data.batch_builder import Packing, build_minibatches
from engine.data.packing import PackedRow
from engine.monitoring.phases import Phases
from engine.rollout.sample import Sample
from engine.training.forward import log_probabilities
from engine.training.heads.token_logprobs import TokenOutputs
from engine.training.parity import Comparison, behind_ties, compare, over_ranks
from engine.training.reference import Reference
from engine.training.routing_margin import RoutingMargins
from engine.training.trained_model import TrainedModel


@dataclass
class RolloutRow:
    """One microbatch of a rollout; every tensor is float32 [T], 0 outside responses.

    ``old_logp`` and ``reference_logp`` are filled in later, and stay None on pipeline stages that
    hold no output layer: no loss is computed there.
    """

    packed: PackedRow
    samples: list[Sample]
    advantages: Tensor
    weights: Tensor
    old_logp: Any = None
    reference_logp: Any = None

    def sample_mean(self, values: Tensor) -> Tensor:
        """Give each response token the mean of its sample's response tokens: [T] -> [T]."""
        parts = self.packed.gather(values)
        if not parts:
            return torch.zeros_like(values)
        means = [part.mean() if len(part) else part.new_zeros(()) for part in parts]
        return self.packed.spread(torch.stack(means))


@dataclass(frozen=True)
class RolloutMinibatch:
    """This rank's rows of one minibatch, and the real tokens of all ranks' rows."""

    rows: list[RolloutRow]
    tokens: int


class RolloutBatch:
    """One rollout, planned and packed for this rank's share.

    Attributes:
        samples: the whole rollout.
        trained: those of its samples that are trained on: of the groups that the algorithm accepts.
            Where it accepts none all are, with advantages of 0: only a KL term can move the policy.
        minibatches: in the order they are trained on.
        groups: how many there are.
        zero_variance_groups: groups whose rewards are all equal.
        comparison: how old log-probabilities compare with the sampler's, over all ranks.
    """

    def __init__(
        self,
        samples: Sequence[Sample],
        algorithm: Algorithm,
        packing: Packing,
        *,
        minibatches: int,
        max_length: int,
        seed: int,
        device: torch.device | str | int,
        phases: Phases,
    ) -> None:
        """Plan and pack. Every rank does the same planning and takes its own share.

        Args:
            samples: the whole rollout.
            minibatches: parts of which each makes one update.
            max_length: tokens of the longest response that sampling allows.
            seed: decides which sample goes into which minibatch.
            device: where the rows shall be.
            phases: where the time of each part goes.
        """
        self._phases = phases
        self._algorithm = algorithm
        self.comparison = Comparison()
        with phases("pack"):
            self.samples = samples
            rewards = torch.tensor([sample.reward for sample in samples])
            groups = torch.tensor([sample.group for sample in samples])
            self.groups = len(groups.unique())
            self.zero_variance_groups = zero_variance_groups(rewards, groups)
            accepted = _accepted(algorithm, rewards, groups)
            kept = accepted or list(range(len(samples)))
            self.trained = [samples[i] for i in kept]
            self.minibatches = self._pack(
                rewards[kept],
                groups[kept],
                packing,
                minibatches,
                max_length,
                seed,
                device,
                accepted=bool(accepted),
            )

    def _pack(
        self,
        rewards: Tensor,
        groups: Tensor,
        packing: Packing,
        minibatches: int,
        max_length: int,
        seed: int,
        device: torch.device | str | int,
        *,
        accepted: bool,
    ) -> list[RolloutMinibatch]:
        trained, algorithm = self.trained, self._algorithm
        lengths = [len(sample.tokens) for sample in trained]
        count = min(minibatches, len(trained))
        shaped = algorithm.shaped_rewards(rewards, torch.tensor(lengths), max_length)
        advantages = algorithm.advantages(shaped, groups)
        if not accepted:
            advantages = torch.zeros_like(advantages)
        sizes = BatchSizes(len(trained), sum(lengths), count, max_length)
        parts = build_minibatches(
            [(sample.prompt_tokens, sample.tokens) for sample in trained],
            algorithm.token_weights(lengths, sizes),
            packing,
            minibatches=count,
            seed=seed,
            device=device,
        )
        return [
            RolloutMinibatch(
                [
                    RolloutRow(
                        row.packed,
                        [trained[i] for i in row.members],
                        row.packed.spread(advantages[list(row.members)]),
                        row.weights,
                    )
                    for row in part.rows
                ],
                part.tokens,
            )
            for part in parts
        ]

    @property
    def lengths(self) -> list[int]:
        """Positions of each sample that is trained on: prompt and response, less one."""
        return [len(sample.prompt_tokens) + len(sample.tokens) - 1 for sample in self.trained]

    @property
    def _rows(self) -> list[RolloutRow]:
        return [row for minibatch in self.minibatches for row in minibatch.rows]

    def fill_old_logprobs(self, policy: TrainedModel, routing_tie: float) -> Comparison:
        """Fill in the log-probabilities of the policy before its first update.

        Args:
            routing_tie: margins of router scores below it are ties, see ``routing_margin``.

        Returns:
            How they compare with the sampler's, over all ranks.
        """
        with self._phases("log_probabilities"):
            rows = self._rows
            with RoutingMargins(policy.chunks) as margins:
                found = log_probabilities(policy.chunks, rows, policy.head)
            compared = Comparison()
            for row, logp, margin in zip(rows, found or [], margins.of(rows), strict=False):
                row.old_logp = logp
                compared += _compare(row, behind_ties(margin, row.packed.cu_seqlens, routing_tie))
            self.comparison = over_ranks(compared)
        return self.comparison

    def fill_reference_logprobs(self, reference: Reference | None, policy: TrainedModel) -> None:
        """Fill in the reference model's log-probabilities, computed as the policy's are."""
        if reference is None:
            return
        with self._phases("reference"):
            found = reference.log_probabilities(self._rows, policy)
            for row, logp in zip(self._rows, found or [], strict=False):
                row.reference_logp = logp

    def train(self, policy: TrainedModel, learning_rate: float) -> list[dict[str, float]]:
        """Make one update of ``policy`` for each minibatch; return the metrics of each."""
        with self._phases("update"):
            return [
                means_over_tokens(policy.update(part.rows, self._loss, part.tokens, learning_rate))
                for part in self.minibatches
            ]

    def _loss(self, outputs: TokenOutputs, row: RolloutRow) -> tuple[Tensor, dict[str, Tensor]]:
        return self._algorithm.loss(outputs.logp, outputs.entropy, row)


def _accepted(algorithm: Algorithm, rewards: Tensor, groups: Tensor) -> list[int]:
    """Return the samples of the groups that ``algorithm`` accepts."""
    accepted = {
        int(group): algorithm.accepts(rewards[groups == group]) for group in groups.unique()
    }
    return [i for i, group in enumerate(groups.tolist()) if accepted[group]]


def _compare(row: RolloutRow, behind_tie: Tensor) -> Comparison:
    compared = Comparison()
    for sample, ours, left_out in zip(
        row.samples, row.packed.gather(row.old_logp), row.packed.gather(behind_tie), strict=True
    ):
        name = f"sample {sample.index} of prompt {sample.prompt_id}"
        theirs = torch.tensor(sample.logprobs, device=ours.device)
        compared += compare(name, ours, theirs, left_out)
    return compared

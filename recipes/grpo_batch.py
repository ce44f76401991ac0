"""From a stored rollout to the minibatches of GRPO on this rank."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from engine.algorithms.advantages import group_advantages, zero_variance_groups
from engine.algorithms.aggregation import sequence_mean_weights, weighted_sum
from engine.algorithms.grpo import grpo_loss
from engine.config.grpo import GrpoConfig
from engine.config.layout import LayoutConfig
from engine.config.training import TrainingConfig
from engine.config.training_layout import row_multiple
from engine.data.minibatches import Minibatch, plan_minibatches
from engine.data.packing import PackedRow, pack, padded_length
from engine.parallel.groups import data_rank, data_ranks
from engine.rollout.sample import Sample
from engine.training.forward import log_probabilities
from engine.training.parity import Comparison, behind_ties, compare, over_ranks
from engine.training.reference import Reference
from engine.training.routing_margin import RoutingMargins
from engine.training.trained_model import TrainedModel


@dataclass
class GrpoRow:
    """One microbatch; every tensor but ``packed``'s is float32 [tokens], 0 outside responses.

    ``old_logp`` and ``reference_logp`` are filled in by :meth:`GrpoBatch.score`, and stay None on
    pipeline stages that hold no output layer: no loss is computed there.
    """

    packed: PackedRow
    samples: list[Sample]
    advantages: Tensor
    weights: Tensor
    old_logp: Tensor | None = None
    reference_logp: Tensor | None = None


@dataclass(frozen=True)
class GrpoMinibatch:
    """This rank's rows of one minibatch, and the real tokens of all ranks' rows."""

    rows: list[GrpoRow]
    tokens: int


class GrpoBatch:
    """One rollout, planned and packed for this rank's share.

    Attributes:
        minibatches: in the order they are trained on.
        zero_variance_groups: groups whose rewards are all equal; their advantages are exactly 0.
        comparison: how old log-probabilities compare with the sampler's, over all ranks.
    """

    def __init__(
        self,
        samples: Sequence[Sample],
        grpo: GrpoConfig,
        layout: LayoutConfig,
        training: TrainingConfig,
        seed: int,
    ) -> None:
        """Plan and pack. Every rank does the same planning and takes its own share.

        Args:
            samples: the whole rollout.
            seed: decides which sample goes into which minibatch.
        """
        rewards = torch.tensor([sample.reward for sample in samples])
        groups = torch.tensor([sample.group for sample in samples])
        advantages = group_advantages(rewards, groups)
        self.zero_variance_groups = zero_variance_groups(rewards, groups)
        self.comparison = Comparison()
        sizes = [(len(s.prompt_tokens), len(s.tokens)) for s in samples]
        plan = plan_minibatches(
            [padded_length(*size, layout.sample_multiple) for size in sizes],
            grpo.minibatches,
            data_ranks(),
            training.tokens_per_microbatch,
            seed,
            layout.microbatch_multiple,
        )
        pack_row = partial(
            pack,
            row_multiple=row_multiple(training, layout),
            sample_multiple=layout.sample_multiple,
        )

        def row_of(members: Sequence[int], part: Minibatch) -> GrpoRow:
            chosen = [samples[i] for i in members]
            packed = pack_row([(s.prompt_tokens, s.tokens) for s in chosen])
            return _row(packed, chosen, advantages[list(members)], len(part.samples))

        self.minibatches = [
            GrpoMinibatch(
                [row_of(members, part) for members in part.rows[data_rank()]],
                tokens=sum(sum(sizes[i]) - 1 for i in part.samples),
            )
            for part in plan
        ]

    @property
    def _rows(self) -> list[GrpoRow]:
        return [row for minibatch in self.minibatches for row in minibatch.rows]

    def fill_old_logprobs(self, policy: TrainedModel, tie: float) -> None:
        """Fill in the old log-probabilities, and ``comparison``.

        Args:
            policy: as it is before the first update.
            tie: routing margins below it are ties.
        """
        rows = self._rows
        with RoutingMargins(policy.chunks) as margins:
            found = log_probabilities(policy.chunks, rows, policy.scorer)
        compared = Comparison()
        for row, logp, margin in zip(rows, found or [], margins.of(rows), strict=False):
            row.old_logp = logp
            behind_tie = behind_ties(margin, row.packed.cu_seqlens, tie)
            for sample, ours, left_out in zip(
                row.samples, row.packed.gather(logp), row.packed.gather(behind_tie), strict=True
            ):
                name = f"sample {sample.index} of prompt {sample.prompt_id}"
                theirs = torch.tensor(sample.logprobs, device=ours.device)
                compared += compare(name, ours, theirs, left_out)
        self.comparison = over_ranks(compared)

    def fill_reference_logprobs(self, reference: Reference, policy: TrainedModel) -> None:
        """Fill in the reference model's log-probabilities, scored as the policy's are."""
        found = reference.log_probabilities(self._rows, policy)
        for row, logp in zip(self._rows, found or [], strict=False):
            row.reference_logp = logp


def _row(
    packed: PackedRow, samples: list[Sample], advantages: Tensor, minibatch_samples: int
) -> GrpoRow:
    row = packed.to(torch.cuda.current_device())
    weights = sequence_mean_weights([len(s.tokens) for s in samples], minibatch_samples)
    return GrpoRow(row, samples, row.spread(advantages), row.spread(weights))


def loss_of(
    grpo: GrpoConfig, logp: Tensor, entropy: Tensor, row: GrpoRow
) -> tuple[Tensor, dict[str, Tensor]]:
    """GRPO's loss of one row, and its metrics with the entropy among them."""
    assert row.old_logp is not None and row.reference_logp is not None
    loss, metrics = grpo_loss(
        logp,
        row.old_logp,
        row.reference_logp,
        row.advantages,
        row.weights,
        clip=grpo.clip,
        kl_coefficient=grpo.kl_coefficient,
    )
    return loss, {**metrics, "entropy": weighted_sum(entropy.detach(), row.weights)}

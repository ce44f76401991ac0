"""Build this rank's weighted rows from samples: plan, pack, weight, bring to the device.

The one place where this is written; base training, fine-tuning, reinforcement learning, benchmarks
and tests all build their minibatches here, so that what is measured is what is trained.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from engine.config.layout import LayoutConfig
from engine.config.training import TrainingConfig
from engine.config.training_layout import row_multiple
from engine.data.minibatches import plan_minibatches
from engine.data.packing import PackedRow, TokenIds, pack, padded_length


@dataclass(frozen=True)
class Packing:
    """How samples become rows in a layout, on one data-parallel rank.

    Attributes:
        rank: this data-parallel rank, of ``ranks``.
        tokens_per_microbatch: the largest sum of (padded) sample lengths in a row.
        row_multiple, sample_multiple: see :func:`engine.data.packing.pack`.
        row_count_multiple: see :func:`engine.data.minibatches.plan_minibatches`.
    """

    rank: int
    ranks: int
    tokens_per_microbatch: int
    row_multiple: int = 1
    sample_multiple: int = 1
    row_count_multiple: int = 1

    @classmethod
    def of(cls, training: TrainingConfig, layout: LayoutConfig, rank: int, ranks: int) -> Packing:
        """Return what ``training`` and ``layout`` ask of rows, for data-parallel rank ``rank``."""
        return cls(
            rank=rank,
            ranks=ranks,
            tokens_per_microbatch=training.tokens_per_microbatch,
            row_multiple=row_multiple(training, layout),
            sample_multiple=layout.sample_multiple,
            row_count_multiple=layout.microbatch_multiple,
        )

    def padded_length(self, sample: tuple[TokenIds, TokenIds]) -> int:
        """Return how many positions a sample (prompt tokens, response tokens) takes in a row."""
        prompt, response = sample
        return padded_length(len(prompt), len(response), self.sample_multiple)

    def pack(self, samples: Sequence[tuple[TokenIds, TokenIds]]) -> PackedRow:
        """Return ``samples`` in one row on the CPU; see :func:`engine.data.packing.pack`."""
        return pack(samples, row_multiple=self.row_multiple, sample_multiple=self.sample_multiple)


@dataclass
class WeightedRow:
    """One microbatch.

    Attributes:
        packed: S samples in a row of T tokens.
        weights: float32 [T] on the row's device; what each response token's loss counts, 0
            elsewhere.
        members: the row's S samples, as indices among those that were given.
    """

    packed: PackedRow
    weights: Tensor
    members: tuple[int, ...]

    def to(self, device: torch.device | str) -> WeightedRow:
        """Return the same row with every tensor on ``device``."""
        weights = self.weights.to(device, non_blocking=True)
        return replace(self, packed=self.packed.to(device), weights=weights)

    def pin_memory(self) -> WeightedRow:
        """Return the same row in page-locked memory, from where ``to`` copies beside the host."""
        return replace(self, packed=self.packed.pin_memory(), weights=self.weights.pin_memory())

    def record_stream(self, stream: torch.cuda.Stream) -> None:
        """Tell the allocator that ``stream`` uses the row too, before its memory is used again."""
        self.packed.record_stream(stream)
        self.weights.record_stream(stream)


@dataclass(frozen=True)
class WeightedMinibatch:
    """The samples of one update.

    Attributes:
        rows: this rank's; every data-parallel rank has as many.
        tokens: real positions (prompt + response - 1 of each sample) on all ranks.
        samples: on all ranks.
    """

    rows: list[WeightedRow]
    tokens: int
    samples: int


def build_minibatches(
    samples: Sequence[tuple[TokenIds, TokenIds]],
    weights: Sequence[float],
    packing: Packing,
    *,
    minibatches: int = 1,
    seed: int = 0,
    device: torch.device | str = "cpu",
) -> list[WeightedMinibatch]:
    """Return this rank's share of every minibatch, in the order in which they are trained on.

    Every rank is given the same samples, plans the same and packs its own. The tokens of a sample
    are looked at only on the rank that it goes to, the lengths on all.

    Args:
        samples: each (prompt tokens, response tokens), of all minibatches and ranks.
        weights: one a sample; each of its response tokens gets it.
        minibatches: number of parts; they differ by at most one sample.
        seed: decides which sample goes into which minibatch, and nothing else.
        device: where the rows shall be.
    Raises:
        RunError: a sample is longer than a row, or there are fewer samples than minibatches.
        ValueError: there are more or fewer weights than samples.
    """
    if len(weights) != len(samples):
        raise ValueError(f"expected {len(samples)} weights, one a sample, found {len(weights)}")
    plan = plan_minibatches(
        [packing.padded_length(sample) for sample in samples],
        minibatches,
        packing.ranks,
        packing.tokens_per_microbatch,
        seed,
        packing.row_count_multiple,
    )

    def row_of(members: tuple[int, ...]) -> WeightedRow:
        packed = packing.pack([samples[i] for i in members])
        return WeightedRow(packed, packed.spread([weights[i] for i in members]), members)

    return [
        WeightedMinibatch(
            rows=[row_of(members).to(device) for members in part.rows[packing.rank]],
            tokens=sum(len(samples[i][0]) + len(samples[i][1]) - 1 for i in part.samples),
            samples=len(part.samples),
        )
        for part in plan
    ]

"""From a position of the stream to the packed rows of one step, on one data-parallel rank.

All of it is a pure function of the position: any process that can read the source makes the same
batch, ahead of time or again after a restart.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from engine.data.minibatches import plan_minibatches
from engine.data.order import Order
from engine.data.packing import PackedRow, TokenIds, pack, padded_length


class Source(Protocol):
    """Samples by index. With or without an end: which indices are asked for, an order says."""

    def sample(self, index: int) -> tuple[TokenIds, TokenIds]:
        """Return the prompt and the response of a sample, always the same ones.

        The tokens are looked at only on the rank that the sample goes to, the lengths on all.
        """


@dataclass(frozen=True)
class Batch:
    """One step's samples: this rank's rows, and what is known of all ranks' samples."""

    rows: list[PackedRow]
    samples: int  # on all ranks, as are the next two
    tokens: int  # real positions (prompt + response - 1 of each sample), padding not counted
    response_tokens: int
    next_position: int
    """Numbers of the stream that are used up with this batch: where the next one starts.

    The whole state of loading: saved after the step, it is all that a restart needs."""


@dataclass(frozen=True)
class BatchReader:
    """Reads, plans and packs the batch at any position; holds no state.

    Attributes:
        source: where samples come from.
        order: which sample is number n of the stream.
        samples: of one step, on all ranks.
        rank: this data-parallel rank, of ``ranks``.
        tokens_per_microbatch: the largest sum of (padded) sample lengths in a row.
        row_multiple, sample_multiple: see :func:`engine.data.packing.pack`.
        row_count_multiple: see :func:`engine.data.minibatches.plan_minibatches`.
    """

    source: Source
    order: Order
    samples: int
    rank: int
    ranks: int
    tokens_per_microbatch: int
    row_multiple: int = 1
    sample_multiple: int = 1
    row_count_multiple: int = 1

    def read(self, position: int) -> Batch:
        """Return the batch of numbers ``position`` ... ``position + samples - 1``, on the CPU.

        Raises:
            RunError: a sample is longer than a row.
        """
        next_position = position + self.samples
        read = [self.source.sample(self.order(n)) for n in range(position, next_position)]
        lengths = [padded_length(len(p), len(r), self.sample_multiple) for p, r in read]
        # The seed would only say which samples go into which of several minibatches.
        (plan,) = plan_minibatches(
            lengths,
            1,
            self.ranks,
            self.tokens_per_microbatch,
            seed=0,
            row_count_multiple=self.row_count_multiple,
        )
        rows = [
            pack(
                [read[i] for i in row],
                row_multiple=self.row_multiple,
                sample_multiple=self.sample_multiple,
            )
            for row in plan.rows[self.rank]
        ]
        return Batch(
            rows=rows,
            samples=self.samples,
            tokens=sum(len(prompt) + len(response) - 1 for prompt, response in read),
            response_tokens=sum(len(response) for _, response in read),
            next_position=next_position,
        )

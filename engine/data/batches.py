"""Read the weighted rows of one step from a position of the stream, on one data-parallel rank.

All of it is a pure function of the position: any process that can read the source makes the same
batch, ahead of time or again after a restart.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import torch

from engine.algorithms.aggregation import token_mean_weights
from engine.data.batch_builder import Packing, WeightedRow, build_minibatches
from engine.data.order import Order
from engine.data.packing import TokenIds
from engine.data.token_dataset import TokenDataset
from engine.errors import RunError


class Source(Protocol):
    """Samples by index. With or without an end: which indices are asked for, an order says."""

    def sample(self, index: int) -> tuple[TokenIds, TokenIds]:
        """Return the prompt and the response of a sample, always the same ones.

        The tokens are looked at only on the rank that the sample goes to, the lengths on all.
        """


@dataclass(frozen=True)
class Batch:
    """One step's samples: this rank's rows, and what is known of all ranks' samples.

    Rows are weighted by the token mean: over the rows of all ranks the weights of response tokens
    add up to 1. ``members`` of a row count the step's samples from 0.
    """

    rows: list[WeightedRow]
    samples: int  # on all ranks, as are the next two
    tokens: int  # real positions (prompt + response - 1 of each sample), padding not counted
    response_tokens: int
    next_position: int
    """Numbers of the stream that are used up with this batch: where the next one starts.

    The whole state of loading: saved after the step, it is all that a restart needs."""


@dataclass(frozen=True)
class BatchReader:
    """Reads and builds the batch at any position; holds no state.

    Attributes:
        source: where samples come from.
        order: which sample is number n of the stream.
        samples: of one step, on all ranks.
        packing: how they become rows on this data-parallel rank.
    """

    source: Source
    order: Order
    samples: int
    packing: Packing

    def read(self, position: int) -> Batch:
        """Return the batch of numbers ``position`` ... ``position + samples - 1``, on the CPU.

        Raises:
            RunError: a sample is longer than a row, or no sample has a response token.
        """
        next_position = position + self.samples
        read = [self.source.sample(self.order(n)) for n in range(position, next_position)]
        lengths = [len(response) for _, response in read]
        if not sum(lengths):
            raise RunError(
                f"samples {position} to {next_position - 1} of the stream: expected a response to"
                " learn, found none in any of them"
            )
        weights = token_mean_weights(lengths, sum(lengths))
        (built,) = build_minibatches(read, weights, self.packing)
        return Batch(built.rows, built.samples, built.tokens, sum(lengths), next_position)


def validation_rows(
    dataset: TokenDataset, packing: Packing, device: torch.device | str
) -> list[WeightedRow]:
    """Return this rank's rows of the whole dataset, always the same ones, on ``device``.

    Every response token weighs the same: summed over the rows of all ranks, weight times loss is
    the mean loss over all response tokens of the dataset, in any layout.

    Raises:
        RunError: a sample is longer than a row, or there is no response token.
    """
    samples = [dataset.sample(index) for index in range(len(dataset))]
    tokens = sum(len(response) for _, response in samples)
    if not tokens:
        raise RunError("validation: expected responses to measure, found none in any sample")
    weights = token_mean_weights([len(response) for _, response in samples], tokens)
    (built,) = build_minibatches(samples, weights, packing, device=device)
    return built.rows

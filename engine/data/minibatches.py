"""Plan minibatches: which sample goes to which data-parallel rank, into which row.

Pure arithmetic on lengths: every rank computes the same plan by itself and reads its own part.
"""

from __future__ import annotations

import random
from bisect import bisect_left, insort
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from engine.errors import RunError

Row = tuple[int, ...]  # indices of the samples that share a row; () is a row of padding only


@dataclass(frozen=True)
class Minibatch:
    """The samples of one update: ``rows[rank][microbatch]`` is a :data:`Row`."""

    rows: tuple[tuple[Row, ...], ...]

    @property
    def samples(self) -> list[int]:
        """The indices of all samples, ascending."""
        return sorted(sample for rank in self.rows for row in rank for sample in row)


def plan_minibatches(
    lengths: Sequence[int],
    minibatches: int,
    ranks: int,
    tokens_per_microbatch: int,
    seed: int,
    row_count_multiple: int = 1,
) -> list[Minibatch]:
    """Split samples into minibatches at random and pack each into rows for all ranks.

    DeepSeek-R1 (v2, supplement, training module): samples sorted by length, spread over the
    data-parallel ranks, best-fit packed into fixed-length chunks, as many chunks on every rank.

    Invariants, each asserted by a test of its name:
    - every sample is in exactly one row
    - minibatches have equal numbers of samples, give or take one
    - no row exceeds tokens_per_microbatch
    - all ranks have the same number of rows (expert-parallel ranks meet in every layer and would
      wait for ever for a missing one), and an empty row only where samples have run out
    - ranks differ in tokens by at most the longest sample
    - rows are few: on one rank at least, all but one have no room for the longest sample
    - rows run from the fullest to the emptiest, so that ranks meet with rows of like size
    - the plan depends on the arguments only

    Args:
        lengths: positions that each sample takes in a row (``engine.data.packing.padded_length``):
            prompt + response - 1 tokens, with the sample's own padding under context parallelism.
            "Tokens" above and below are these. What fills up the row itself is not counted.
        minibatches: number of parts.
        ranks: data-parallel size.
        tokens_per_microbatch: the largest sum of lengths in a row.
        seed: decides which sample goes into which minibatch, and nothing else.
        row_count_multiple: rows of each rank come in multiples of it (an interleaved pipeline
            takes as many at a time as it has stages).
    Raises:
        RunError: a sample is longer than a row, or there are fewer samples than minibatches.
    """
    if len(lengths) < minibatches:
        raise RunError(
            f"{len(lengths)} samples cannot be split into {minibatches} minibatches;"
            " ask for fewer minibatches or more samples"
        )
    for sample, length in enumerate(lengths):
        if length > tokens_per_microbatch:
            raise RunError(
                f"sample {sample} has {length} tokens, which is more than"
                f" training.tokens_per_microbatch ({tokens_per_microbatch}); samples are never cut"
            )
    order = list(range(len(lengths)))
    random.Random(seed).shuffle(order)
    return [
        _plan(order[part::minibatches], lengths, ranks, tokens_per_microbatch, row_count_multiple)
        for part in range(minibatches)
    ]


def _plan(
    samples: list[int], lengths: Sequence[int], ranks: int, capacity: int, multiple: int
) -> Minibatch:
    packed = [
        _best_fit(_longest_first(share, lengths), lengths, capacity)
        for share in _spread(samples, lengths, ranks)
    ]
    count = -(-max(len(rows) for rows in packed) // multiple) * multiple
    return Minibatch(tuple(_with_rows(rows, count, lengths) for rows in packed))


def _longest_first(samples: Iterable[int], lengths: Sequence[int]) -> list[int]:
    return sorted(samples, key=lambda sample: (-lengths[sample], sample))


def _spread(samples: Iterable[int], lengths: Sequence[int], parts: int) -> list[list[int]]:
    """Balance tokens: longest first, each sample to the part with the fewest tokens so far."""
    shares: list[list[int]] = [[] for _ in range(parts)]
    tokens = [0] * parts
    for sample in _longest_first(samples, lengths):
        least = tokens.index(min(tokens))
        shares[least].append(sample)
        tokens[least] += lengths[sample]
    return shares


def _best_fit(samples: list[int], lengths: Sequence[int], capacity: int) -> list[list[int]]:
    """Put each sample into the row with the least room that is still enough, or into a new row."""
    rows: list[list[int]] = []
    room: list[tuple[int, int]] = []  # (free tokens, row), ascending
    for sample in samples:
        fitting = bisect_left(room, (lengths[sample], -1))
        if fitting < len(room):
            free, row = room.pop(fitting)
        else:
            free, row = capacity, len(rows)
            rows.append([])
        rows[row].append(sample)
        insort(room, (free - lengths[sample], row))
    return rows


def _with_rows(rows: list[list[int]], count: int, lengths: Sequence[int]) -> tuple[Row, ...]:
    """Bring a rank to ``count`` rows: halve its fullest row, and failing that add empty ones."""

    def tokens(row: list[int]) -> int:
        return sum(lengths[sample] for sample in row)

    rows = list(rows)
    while len(rows) < count:
        several = [row for row in rows if len(row) > 1]
        if several:
            fullest = max(several, key=tokens)
            rows.remove(fullest)
            rows.extend(_spread(fullest, lengths, 2))
        else:
            rows.append([])
    return tuple(tuple(sorted(row)) for row in sorted(rows, key=tokens, reverse=True))

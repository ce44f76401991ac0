"""Batches as a function of the position: nothing lost over ranks, restarts and flattening."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass, replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from same_batches import same

from engine.data.batches import Batch, BatchReader
from engine.data.flat_batch import flatten, unflatten
from engine.data.order import Shuffled, in_turn
from engine.errors import RunError


@dataclass(frozen=True)
class Numbered:
    """Sample i has a prompt of token i + 1 and a response whose length depends on i."""

    longest: int = 9

    def sample(self, index: int) -> tuple[list[int], list[int]]:
        return [index + 1], [index + 1] * (1 + index * 7 % self.longest)


READERS = st.builds(
    BatchReader,
    source=st.just(Numbered()),
    order=st.builds(Shuffled, samples=st.integers(1, 40), seed=st.integers(0, 99)),
    samples=st.integers(1, 12),
    rank=st.just(0),
    ranks=st.integers(1, 4),
    tokens_per_microbatch=st.integers(12, 40),
    row_multiple=st.sampled_from([4, 8]),
    sample_multiple=st.sampled_from([1, 2, 4]),
)


def held(batches: list[Batch]) -> Counter:
    """How many label positions of each sample the batches' rows hold (token i + 1 is sample i)."""
    labels = torch.cat([row.labels[~row.padding_mask] for b in batches for row in b.rows])
    return Counter(labels.tolist())


@given(READERS, st.integers(0, 100))
def test_all_ranks_together_hold_the_steps_samples(reader: BatchReader, position: int) -> None:
    batches = [replace(reader, rank=rank).read(position) for rank in range(reader.ranks)]
    expected: Counter = Counter()
    for number in range(position, position + reader.samples):
        index = reader.order(number)
        expected[index + 1] += len(reader.source.sample(index)[1])
    assert held(batches) == expected
    assert len({len(batch.rows) for batch in batches}) == 1
    for batch in batches:
        assert batch.tokens == batch.response_tokens == expected.total()
        assert batch.samples == reader.samples
        assert batch.next_position == position + reader.samples


@given(READERS, st.integers(0, 100), st.integers(1, 5))
def test_a_run_that_goes_on_reads_what_an_undisturbed_one_reads(reader, start, steps) -> None:
    undisturbed, position = [], start
    for _ in range(steps + 2):
        undisturbed.append(reader.read(position))
        position = undisturbed[-1].next_position
    saved = json.loads(json.dumps({"position": undisturbed[steps - 1].next_position}))
    assert same(reader.read(saved["position"]), undisturbed[steps])


@given(READERS, st.integers(0, 100))
def test_flat_and_back(reader: BatchReader, position: int) -> None:
    batch = reader.read(position)
    arrays, outline = flatten(batch)
    flat = {name: torch.from_numpy(array) for name, array in arrays.items()}
    assert same(unflatten(flat, outline.tolist()), batch)


def test_lengths_of_a_plan_are_padded_ones() -> None:
    """Two samples of 3 positions fit a row of 6, but not when each is padded to 4."""
    reader = BatchReader(Threes(), in_turn, samples=2, rank=0, ranks=1, tokens_per_microbatch=6)
    assert len(reader.read(0).rows) == 1
    padded = replace(reader, row_multiple=4, sample_multiple=4)
    assert [row.cu_seqlens.tolist() for row in padded.read(0).rows] == [[0, 4], [0, 4]]


class Threes:
    def sample(self, index: int) -> tuple[list[int], list[int]]:
        return [1, 2], [3, 4]


def test_a_sample_longer_than_a_row_is_refused() -> None:
    reader = BatchReader(Numbered(30), in_turn, 8, rank=0, ranks=1, tokens_per_microbatch=16)
    with pytest.raises(RunError, match=r"sample 3 has 22 tokens.*tokens_per_microbatch"):
        reader.read(0)

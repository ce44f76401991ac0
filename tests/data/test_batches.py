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

from engine.data.batch_builder import Packing
from engine.data.batches import Batch, BatchReader, validation_rows
from engine.data.flat_batch import flatten, unflatten
from engine.data.order import Shuffled, in_turn
from engine.data.token_dataset import TokenDataset, write_dataset
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
    packing=st.builds(
        Packing,
        rank=st.just(0),
        ranks=st.integers(1, 4),
        tokens_per_microbatch=st.integers(12, 40),
        row_multiple=st.sampled_from([4, 8]),
        sample_multiple=st.sampled_from([1, 2, 4]),
        row_count_multiple=st.integers(1, 2),
    ),
)


def on_every_rank(reader: BatchReader, position: int) -> list[Batch]:
    packings = [replace(reader.packing, rank=rank) for rank in range(reader.packing.ranks)]
    return [replace(reader, packing=packing).read(position) for packing in packings]


def held(batches: list[Batch]) -> Counter:
    """How many label positions of each sample the batches' rows hold (token i + 1 is sample i)."""
    rows = [row.packed for batch in batches for row in batch.rows]
    labels = torch.cat([row.labels[~row.padding_mask] for row in rows])
    return Counter(labels.tolist())


@given(READERS, st.integers(0, 100))
def test_all_ranks_together_hold_the_steps_samples(reader: BatchReader, position: int) -> None:
    batches = on_every_rank(reader, position)
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
    reader = BatchReader(Threes(), in_turn, 2, Packing(0, 1, tokens_per_microbatch=6))
    assert len(reader.read(0).rows) == 1
    padded = replace(reader, packing=Packing(0, 1, 6, row_multiple=4, sample_multiple=4))
    assert [row.packed.cu_seqlens.tolist() for row in padded.read(0).rows] == [[0, 4], [0, 4]]


class Threes:
    def sample(self, index: int) -> tuple[list[int], list[int]]:
        return [1, 2], [3, 4]


def test_a_sample_longer_than_a_row_is_refused() -> None:
    reader = BatchReader(Numbered(30), in_turn, 8, Packing(0, 1, tokens_per_microbatch=16))
    with pytest.raises(RunError, match=r"sample 3 has 22 tokens.*tokens_per_microbatch"):
        reader.read(0)


@given(READERS, st.integers(0, 100))
def test_every_response_token_of_the_step_weighs_the_same(reader, position) -> None:
    batches = on_every_rank(reader, position)
    for batch in batches:
        for row in batch.rows:
            assert row.weights.dtype == torch.float32
            expected = row.packed.spread([1.0 / batch.response_tokens] * len(row.members))
            assert row.weights.equal(expected)
    total = sum(float(row.weights.double().sum()) for batch in batches for row in batch.rows)
    assert total == pytest.approx(1.0, abs=1e-6)


class Mute:
    def sample(self, index: int) -> tuple[list[int], list[int]]:
        return [1, 2], []


def test_a_step_without_any_response_is_refused() -> None:
    reader = BatchReader(Mute(), in_turn, 2, Packing(0, 1, tokens_per_microbatch=6))
    with pytest.raises(RunError, match="samples 4 to 5 of the stream: expected a response"):
        reader.read(4)


@pytest.fixture(scope="module")
def dataset(tmp_path_factory) -> TokenDataset:
    folder = tmp_path_factory.mktemp("validation") / "set"
    write_dataset(folder, (Numbered().sample(n) for n in range(30)), vocab_size=100)
    return TokenDataset(folder)


@given(st.integers(1, 4), st.sampled_from([1, 2, 4]), st.integers(1, 2))
def test_validation_is_the_mean_over_all_response_tokens(dataset, ranks, multiple, count) -> None:
    """In any layout; the "loss" of a token is its label here."""
    total = 0.0
    for rank in range(ranks):
        packing = Packing(rank, ranks, 24, multiple, multiple, row_count_multiple=count)
        rows = validation_rows(dataset, packing, "cpu")
        assert len(rows) % count == 0
        total += sum(float((row.weights * row.packed.labels).double().sum()) for row in rows)
    responses = [dataset.sample(n)[1].tolist() for n in range(30)]
    expected = sum(map(sum, responses)) / sum(map(len, responses))
    assert total == pytest.approx(expected, rel=1e-6)


def test_nothing_to_validate_is_refused(tmp_path) -> None:
    write_dataset(tmp_path / "set", [([1, 2], [])], vocab_size=9)
    with pytest.raises(RunError, match="validation: expected responses to measure, found none"):
        validation_rows(TokenDataset(tmp_path / "set"), Packing(0, 1, 8), "cpu")

"""The one builder of minibatches: nothing lost or doubled, weights where they belong."""

from __future__ import annotations

from collections import Counter

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from engine.config.layout import LayoutConfig
from engine.config.training import TrainingConfig
from engine.data.batch_builder import Packing, WeightedRow, build_minibatches
from engine.data.packing import pack
from engine.errors import RunError

Samples = list[tuple[list[int], list[int]]]


@st.composite
def weighted_samples(draw: st.DrawFn) -> tuple[Samples, list[float]]:
    """Sample i consists of token i + 1 and weighs an exact binary fraction."""
    sizes = draw(st.lists(st.tuples(st.integers(1, 4), st.integers(1, 7)), min_size=3, max_size=20))
    samples = [([i + 1] * p, [i + 1] * r) for i, (p, r) in enumerate(sizes)]
    return samples, [(1 + i % 7) / 8 for i in range(len(samples))]


PACKINGS = st.builds(
    Packing,
    rank=st.just(0),
    ranks=st.integers(1, 3),
    tokens_per_microbatch=st.integers(12, 40),
    row_multiple=st.sampled_from([4, 8]),
    sample_multiple=st.sampled_from([1, 2, 4]),
    row_count_multiple=st.integers(1, 3),
)


def on_rank(packing: Packing, rank: int) -> Packing:
    return Packing(**{**vars(packing), "rank": rank})


@given(weighted_samples(), PACKINGS, st.integers(1, 3), st.integers(0, 9))
def test_all_ranks_and_parts_together_hold_every_sample_once(
    given_samples, packing: Packing, minibatches: int, seed: int
) -> None:
    samples, weights = given_samples
    built = [
        build_minibatches(
            samples, weights, on_rank(packing, rank), minibatches=minibatches, seed=seed
        )
        for rank in range(packing.ranks)
    ]
    rows = [row for rank in built for part in rank for row in part.rows]
    members = Counter(i for row in rows for i in row.members)
    assert members == Counter(range(len(samples)))
    for parts in zip(*built, strict=True):  # one minibatch as the ranks see it
        assert len({len(part.rows) for part in parts}) == 1
        assert len(parts[0].rows) % packing.row_count_multiple == 0
        held = [samples[i] for part in parts for row in part.rows for i in row.members]
        for part in parts:
            assert part.samples == len(held)
            assert part.tokens == sum(len(p) + len(r) - 1 for p, r in held)


@given(weighted_samples(), PACKINGS)
def test_a_row_holds_its_members_tokens_and_weights(given_samples, packing: Packing) -> None:
    samples, weights = given_samples
    (minibatch,) = build_minibatches(samples, weights, packing)
    for row in minibatch.rows:
        chosen = [samples[i] for i in row.members]
        expected = pack(
            chosen, row_multiple=packing.row_multiple, sample_multiple=packing.sample_multiple
        )
        for name, value in vars(expected).items():
            found = getattr(row.packed, name)
            assert found.equal(value) if isinstance(value, torch.Tensor) else found == value
        assert row.weights.dtype == torch.float32
        assert not row.weights[~row.packed.response_mask].any()
        for i, of_sample in zip(row.members, row.packed.gather(row.weights), strict=True):
            assert of_sample.tolist() == [weights[i]] * len(samples[i][1])


@given(weighted_samples(), PACKINGS, st.integers(1, 3))
def test_weighted_sums_of_all_rows_are_those_of_the_samples(
    given_samples, packing: Packing, minibatches: int
) -> None:
    samples, weights = given_samples
    total = 0.0
    for rank in range(packing.ranks):
        parts = build_minibatches(samples, weights, on_rank(packing, rank), minibatches=minibatches)
        for row in (row for part in parts for row in part.rows):
            total += float((row.weights * row.packed.labels).double().sum())
    expected = sum(w * sum(r) for w, (_, r) in zip(weights, samples, strict=True))
    assert total == expected  # binary fractions: exact


@pytest.mark.parametrize(
    ("layout", "expected"),
    [
        ({"processes": 1}, Packing(1, 2, 96)),
        ({"processes": 8, "tp": 2, "cp": 2}, Packing(1, 2, 96, 8, 4, 1)),
        ({"processes": 4, "pp": 2, "vpp": 2}, Packing(1, 2, 96, 96, 1, 2)),
    ],
)
def test_packing_of_a_layout(layout: dict, expected: Packing) -> None:
    training = TrainingConfig(dtype="float32", tokens_per_microbatch=96)
    assert Packing.of(training, LayoutConfig(**layout), 1, 2) == expected


def test_rows_are_where_they_are_asked_for() -> None:
    (minibatch,) = build_minibatches([([1], [2, 3])], [0.5], Packing(0, 1, 8), device="meta")
    (row,) = minibatch.rows
    assert row.weights.device.type == row.packed.tokens.device.type == "meta"
    assert row.members == (0,)


def test_an_empty_row_has_weights_of_zero() -> None:
    packing = Packing(1, 2, 8, row_multiple=4)
    (minibatch,) = build_minibatches([([1], [2, 3])], [0.5], packing)
    (row,) = minibatch.rows
    assert isinstance(row, WeightedRow) and row.members == ()
    assert row.weights.tolist() == [0.0] * 4


def test_weights_and_samples_go_together() -> None:
    with pytest.raises(ValueError, match="expected 1 weights, one a sample, found 2"):
        build_minibatches([([1], [2])], [1.0, 2.0], Packing(0, 1, 8))


def test_a_sample_longer_than_a_row_is_refused() -> None:
    with pytest.raises(RunError, match=r"sample 1 has 9 tokens.*tokens_per_microbatch"):
        build_minibatches([([1], [2]), ([1], [2] * 9)], [1.0, 1.0], Packing(0, 1, 8))

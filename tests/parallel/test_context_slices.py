"""The zigzag of context parallelism: hand-computed, and that no position is lost or doubled."""

from __future__ import annotations

from itertools import accumulate, pairwise

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from engine.data.packing import pack
from engine.parallel.context_slices import row_order, slice_of

RANKS = st.integers(1, 4)
CHUNKS = st.lists(st.integers(1, 5), min_size=1, max_size=6)  # chunk sizes of the samples


def bounds_of(chunks: list[int], ranks: int) -> torch.Tensor:
    return torch.tensor([0, *accumulate(2 * ranks * chunk for chunk in chunks)], dtype=torch.int32)


def slices(bounds: torch.Tensor, ranks: int) -> list[torch.Tensor]:
    return [slice_of(bounds, int(bounds[-1]), rank, ranks) for rank in range(ranks)]


def test_hand_computed_slices() -> None:
    bounds = torch.tensor([0, 8, 12], dtype=torch.int32)
    first, second = slices(bounds, 2)
    assert first.tolist() == [0, 1, 6, 7, 8, 11]
    assert second.tolist() == [2, 3, 4, 5, 9, 10]
    assert row_order(bounds, 12, 2).tolist() == [0, 1, 6, 7, 8, 9, 2, 3, 4, 10, 11, 5]


@given(CHUNKS, RANKS)
def test_all_ranks_together_are_a_permutation_of_the_row(chunks, ranks) -> None:
    bounds = bounds_of(chunks, ranks)
    assert torch.cat(slices(bounds, ranks)).sort().values.tolist() == list(range(int(bounds[-1])))


@given(CHUNKS, RANKS)
def test_slices_are_of_equal_size(chunks, ranks) -> None:
    bounds = bounds_of(chunks, ranks)
    assert {len(held) for held in slices(bounds, ranks)} == {int(bounds[-1]) // ranks}


@given(CHUNKS, RANKS)
def test_each_rank_holds_chunks_r_and_2cp_minus_1_minus_r_in_order(chunks, ranks) -> None:
    bounds = bounds_of(chunks, ranks)
    for rank, held in enumerate(slices(bounds, ranks)):
        expected: list[int] = []
        for start, end in pairwise(bounds.tolist()):
            parts = torch.arange(start, end).chunk(2 * ranks)
            expected += [*parts[rank].tolist(), *parts[2 * ranks - 1 - rank].tolist()]
        assert held.tolist() == expected


@given(CHUNKS, RANKS)
def test_causal_attention_costs_every_rank_the_same(chunks, ranks) -> None:
    """Position p of a sample attends to p + 1 positions."""
    bounds = bounds_of(chunks, ranks)
    positions = torch.cat([torch.arange(end - start) for start, end in pairwise(bounds.tolist())])
    costs = {int((positions[held] + 1).sum()) for held in slices(bounds, ranks)}
    assert len(costs) == 1


@given(st.lists(st.tuples(st.integers(1, 9), st.integers(1, 9)), max_size=5), RANKS)
def test_row_order_undoes_the_slices_of_a_packed_row(sizes, ranks) -> None:
    samples = [([7] * prompt, [8] * response) for prompt, response in sizes]
    row = pack(samples, row_multiple=6 * ranks, sample_multiple=2 * ranks)
    gathered = torch.cat([row.tokens[held] for held in slices(row.cu_seqlens, ranks)])
    assert gathered[row_order(row.cu_seqlens, len(row.tokens), ranks)].equal(row.tokens)


@given(st.lists(st.integers(1, 9), min_size=1, max_size=5))
def test_one_rank_holds_the_row_as_it_is(lengths) -> None:
    bounds = torch.tensor([0, *accumulate(lengths)], dtype=torch.int32)
    assert slice_of(bounds, sum(lengths), 0, 1).tolist() == list(range(sum(lengths)))


def test_a_row_that_cannot_be_cut_is_refused() -> None:
    with pytest.raises(ValueError, match=r"10 tokens.*4 chunks.*sample_multiple=4"):
        slice_of(torch.tensor([0, 10], dtype=torch.int32), 10, 0, 2)

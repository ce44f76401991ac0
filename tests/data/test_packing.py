"""Packed rows: hand-computed tensors, and that nothing is lost on the way in and out."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from engine.algorithms.aggregation import sequence_mean_weights
from engine.data.packing import pack, padded_length

TOKENS = st.lists(st.integers(1, 99), max_size=6)
SAMPLES = st.lists(
    st.tuples(TOKENS.filter(bool), TOKENS).filter(lambda s: len(s[0]) + len(s[1]) > 1), max_size=5
)


def test_hand_computed_row() -> None:
    row = pack([([5, 6], [7, 8, 9]), ([1], [2])], row_multiple=4)
    assert row.tokens.tolist() == [5, 6, 7, 8, 1, 0, 0, 0]
    assert row.labels.tolist() == [6, 7, 8, 9, 2, 0, 0, 0]
    assert row.position_ids.tolist() == [0, 1, 2, 3, 0, 0, 1, 2]
    assert row.cu_seqlens.tolist() == [0, 4, 5, 8]
    assert row.padding_mask.tolist() == [False] * 5 + [True] * 3
    assert row.response_mask.tolist() == [False, True, True, True, True, False, False, False]
    assert row.response_lengths == (3, 1)
    assert row.longest == 4
    assert row.spread([0.5, 2.0]).tolist() == [0, 0.5, 0.5, 0.5, 2, 0, 0, 0]
    assert row.scatter([[1, 2, 3], [4]]).tolist() == [0, 1, 2, 3, 4, 0, 0, 0]
    gathered = row.gather(torch.arange(8))
    assert [part.tolist() for part in gathered] == [[1, 2, 3], [4]]


def test_hand_computed_row_for_context_parallelism() -> None:
    samples = [([5, 6], [7, 8, 9]), ([1], [2])]
    row = pack([*samples, ([3, 3], [4])], row_multiple=8, sample_multiple=4)
    assert row.tokens.tolist() == [5, 6, 7, 8, 1, 0, 0, 0, 3, 3, 0, 0, 0, 0, 0, 0]
    assert row.labels.tolist() == [6, 7, 8, 9, 2, 0, 0, 0, 3, 4, 0, 0, 0, 0, 0, 0]
    assert row.position_ids.tolist() == [0, 1, 2, 3] * 4
    assert row.cu_seqlens.tolist() == [0, 4, 8, 12, 16]
    real = [True] * 5 + [False] * 3 + [True] * 2 + [False] * 6
    assert row.padding_mask.tolist() == [not x for x in real]
    assert row.response_mask.nonzero().flatten().tolist() == [1, 2, 3, 4, 9]
    assert row.response_lengths == (3, 1, 1)
    assert row.longest == 4


def test_arrays_pack_like_lists() -> None:
    samples = [([5, 6], [7, 8, 9]), ([1, 2], [])]
    arrays = [(np.array(p, np.uint16), np.array(r, np.uint16)) for p, r in samples]
    for name, value in vars(pack(samples, row_multiple=4)).items():
        other = getattr(pack(arrays, row_multiple=4), name)
        assert other.equal(value) if isinstance(value, torch.Tensor) else other == value


def test_dtypes() -> None:
    row = pack([([5, 6], [7])], row_multiple=8)
    assert {row.tokens.dtype, row.labels.dtype, row.position_ids.dtype} == {torch.int64}
    assert row.cu_seqlens.dtype == torch.int32
    assert row.padding_mask.dtype == row.response_mask.dtype == torch.bool
    assert row.spread([1]).dtype == row.scatter([[1]]).dtype == torch.float32
    assert row.scatter([torch.ones(1, dtype=torch.float64)]).dtype == torch.float64


@pytest.mark.parametrize("multiple", [1, 8])
def test_an_empty_row_is_a_valid_row(multiple: int) -> None:
    row = pack([], row_multiple=multiple)
    assert row.tokens.shape == (multiple,)
    assert row.cu_seqlens.tolist() == [0, multiple]
    assert row.padding_mask.all()
    assert not row.response_mask.any()
    assert row.spread([]).tolist() == row.scatter([]).tolist() == [0.0] * multiple
    assert row.gather(torch.ones(multiple)) == []


@given(SAMPLES, st.integers(1, 8), st.integers(1, 4))
def test_a_row_holds_its_samples_and_nothing_else(samples, of_sample: int, times: int) -> None:
    multiple = of_sample * times
    row = pack(samples, row_multiple=multiple, sample_multiple=of_sample)
    total = len(row.tokens)
    assert total % multiple == 0
    planned = sum(padded_length(len(p), len(r), of_sample) for p, r in samples)
    assert total - planned < multiple or not samples
    bounds = row.cu_seqlens.tolist()
    assert bounds[0] == 0
    assert bounds[-1] == total
    assert bounds == sorted(set(bounds))
    real = 0
    for (prompt, response), start, padded in zip(samples, bounds, bounds[1:], strict=False):
        end = start + len(prompt) + len(response) - 1
        real += end - start
        assert padded - end < of_sample
        assert (padded - start) % of_sample == 0
        assert row.tokens[start:end].tolist() == [*prompt, *response][:-1]
        assert row.labels[start:end].tolist() == [*prompt, *response][1:]
        assert row.position_ids[start:padded].tolist() == list(range(padded - start))
        first = start + len(prompt) - 1
        assert row.response_mask[start:padded].nonzero().flatten().tolist() == list(
            range(first - start, end - start)
        )
        assert row.labels[first:end].tolist() == response
        assert not row.padding_mask[start:end].any()
        assert row.padding_mask[end:padded].all()
    assert int((~row.padding_mask).sum()) == real
    assert row.tokens[row.padding_mask].sum() == row.labels[row.padding_mask].sum() == 0
    assert row.longest == max(b - a for a, b in pairwise(bounds))


@given(SAMPLES, st.integers(1, 8), st.integers(1, 4))
def test_gather_undoes_scatter_and_spread_adds_up(samples, of_sample: int, times: int) -> None:
    row = pack(samples, row_multiple=of_sample * times, sample_multiple=of_sample)
    values = [[float(10 * i + t) for t in range(len(r))] for i, (_, r) in enumerate(samples)]
    placed = row.scatter(values)
    assert [part.tolist() for part in row.gather(placed)] == values
    assert placed[~row.response_mask].abs().sum() == 0
    of_responses = sum(1 for _, response in samples if response)
    weights = row.spread(sequence_mean_weights(row.response_lengths, max(1, of_responses)))
    assert weights.sum().item() == pytest.approx(1.0 if of_responses else 0.0)


def test_gradients_flow_through_gather() -> None:
    row = pack([([5, 6], [7, 8]), ([1, 2, 3], [4])], row_multiple=8)
    values = torch.zeros(8, requires_grad=True)
    first, second = row.gather(values)
    (first.sum() + 2 * second.sum()).backward()
    assert values.grad is not None
    assert values.grad.tolist() == row.spread([1.0, 2.0]).tolist()


def test_a_wrong_number_of_values_is_refused() -> None:
    with pytest.raises(ValueError, match=r"\(2,\), found \(1,\)"):
        pack([([5], [7, 8])]).scatter([[1.0]])


@pytest.mark.parametrize("sample", [([], [1, 2]), ([1], [])])
def test_a_sample_that_predicts_nothing_is_refused(sample) -> None:
    with pytest.raises(ValueError, match="needs a prompt"):
        pack([sample])


def test_multiples_that_do_not_fit_each_other_are_refused() -> None:
    with pytest.raises(ValueError, match=r"row_multiple must be a multiple .* \(4\), found 6"):
        pack([([1], [2])], row_multiple=6, sample_multiple=4)

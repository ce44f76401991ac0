"""Attention over a packed row is attention over each of its samples, and wastes little."""

import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn.functional import scaled_dot_product_attention

from engine.models.torch_layers.attention import (
    attend_from_a_slice,
    attend_within_samples,
    length_buckets,
)
from engine.parallel.context_slices import slice_of

lengths = st.lists(st.integers(1, 70), min_size=1, max_size=12)


def bounds_of(sizes):
    return torch.tensor([0, *sizes]).cumsum(0).int()


@given(lengths)
def test_buckets_hold_every_position_exactly_once(sizes):
    held = [p[valid] for p, valid in length_buckets(bounds_of(sizes))]
    assert torch.cat(held).sort().values.tolist() == list(range(sum(sizes)))


@given(lengths)
def test_a_sample_is_padded_to_less_than_twice_its_length(sizes):
    for positions, valid in length_buckets(bounds_of(sizes)):
        assert all(positions.shape[1] < 2 * own for own in valid.sum(1).tolist())


def test_an_empty_sample_is_no_trouble():
    held = [p[valid] for p, valid in length_buckets(torch.tensor([0, 3, 3, 5]))]
    assert torch.cat(held).sort().values.tolist() == [0, 1, 2, 3, 4]


@given(lengths, st.sampled_from([(4, 4), (4, 2), (3, 1)]))
def test_a_row_equals_its_samples_one_by_one(sizes, heads):
    torch.manual_seed(0)
    query_heads, groups = heads
    total = sum(sizes)
    q = torch.randn(total, query_heads, 8, dtype=torch.float64)
    k, v = torch.randn(2, total, groups, 8, dtype=torch.float64)
    found = attend_within_samples(q, k, v, bounds_of(sizes), scale=0.3)
    for own_q, own_k, own_v, own in zip(*(x.split(sizes) for x in (q, k, v, found)), strict=True):
        one = scaled_dot_product_attention(
            *(x.transpose(0, 1)[None] for x in (own_q, own_k, own_v)),
            is_causal=True,
            scale=0.3,
            enable_gqa=True,
        )
        expected = one[0].transpose(0, 1).flatten(1)
        assert torch.allclose(own, expected, atol=1e-12)


@given(st.lists(st.integers(1, 9), min_size=1, max_size=6), st.integers(1, 4))
def test_the_slices_of_context_ranks_together_equal_the_row(chunks, ranks):
    torch.manual_seed(0)
    sizes = [2 * ranks * chunk for chunk in chunks]
    q, k = (
        torch.randn(sum(sizes), 4, 6, dtype=torch.float64),
        torch.randn(sum(sizes), 2, 6).double(),
    )
    v = torch.randn(sum(sizes), 2, 3, dtype=torch.float64)  # MLA: values of another size
    bounds = bounds_of(sizes)
    expected = attend_within_samples(q, k, v, bounds, scale=0.3)
    for rank in range(ranks):
        held = slice_of(bounds, sum(sizes), rank, ranks)
        found = attend_from_a_slice(q[held], k, v, bounds, held, scale=0.3)
        assert torch.allclose(found, expected[held], atol=1e-12)

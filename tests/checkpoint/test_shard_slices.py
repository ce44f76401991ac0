"""Rectangles of a flat range: its elements, in its order, and nothing else."""

from __future__ import annotations

from math import prod

import torch
from hypothesis import given
from hypothesis import strategies as st

from engine.checkpoint.shard_slices import shard_slices


@st.composite
def ranges(draw):
    shape = draw(st.lists(st.integers(1, 6), min_size=0, max_size=4))
    start = draw(st.integers(0, prod(shape)))
    return shape, start, draw(st.integers(start, prod(shape)))


@given(ranges())
def test_they_hold_the_range_in_its_order_and_are_contiguous(drawn):
    shape, start, stop = drawn
    whole = torch.arange(prod(shape)).reshape(shape)
    found = []
    for offset, size in shard_slices(shape, start, stop):
        piece = whole[tuple(slice(o, o + s) for o, s in zip(offset, size, strict=True))]
        assert piece.shape == torch.Size(size) and piece.numel() > 0
        values = piece.flatten().tolist()
        assert values == list(range(values[0], values[0] + len(values)))
        found += values
    assert found == list(range(start, stop))


@given(ranges())
def test_a_matrix_needs_three_at_most(drawn):
    shape, start, stop = drawn
    if len(shape) == 2:
        assert len(list(shard_slices(shape, start, stop))) <= 3

"""Pieces make up a tensor when every element is in exactly one of them."""

from __future__ import annotations

from collections import Counter
from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.weights.places import make_up


def place(*bounds: tuple[int, int]) -> tuple[slice, ...]:
    return tuple(slice(*pair) for pair in bounds)


def test_an_overlap_and_a_gap_of_the_same_size_are_no_whole():
    assert make_up((8, 2), [place((0, 4), (0, 2)), place((4, 8), (0, 2))])
    assert not make_up((8, 2), [place((0, 4), (0, 2)), place((2, 6), (0, 2))])
    assert not make_up((8, 2), [place((0, 4), (0, 2)), place((6, 10), (0, 2))])


@pytest.mark.parametrize(("count", "whole"), [(0, False), (1, True), (2, False)])
def test_a_scalar_is_one_piece(count, whole):
    assert make_up((), [()] * count) == whole


LENGTHS = st.tuples(st.integers(1, 4), st.integers(1, 4))


@given(LENGTHS, st.data())
def test_it_agrees_with_counting_elements(shape, data):
    def interval(length: int) -> st.SearchStrategy[tuple[int, int]]:
        ends = st.tuples(st.integers(0, length), st.integers(0, length))
        return ends.filter(lambda pair: pair[0] < pair[1])

    boxes = st.tuples(*(interval(length) for length in shape))
    places = [place(*box) for box in data.draw(st.lists(boxes, max_size=5))]
    counts = Counter(
        cell for one in places for cell in product(*(range(p.start, p.stop) for p in one))
    )
    every = product(*(range(length) for length in shape))
    assert make_up(shape, places) == (counts == Counter(every))

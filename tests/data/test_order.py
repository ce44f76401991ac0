"""The one order: every epoch a permutation, random in every respect one can count."""

from __future__ import annotations

from collections import Counter
from itertools import pairwise, permutations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.data.order import Shuffled, in_turn

EPOCH_0 = [1, 9, 4, 7, 0, 6, 5, 2, 8, 3]
EPOCH_1 = [8, 5, 6, 1, 7, 9, 2, 3, 0, 4]
OF_MANY = 673550928565


def epoch(order: Shuffled, number: int) -> list[int]:
    return [order(number * order.samples + place) for place in range(order.samples)]


@given(st.integers(1, 400), st.integers(0, 2**40), st.integers(0, 1000))
def test_every_epoch_holds_every_sample_once(samples, seed, number) -> None:
    assert sorted(epoch(Shuffled(samples, seed), number)) == list(range(samples))


def test_seeds_and_epochs_give_other_orders() -> None:
    orders = {
        tuple(epoch(Shuffled(50, seed), number)) for seed in range(10) for number in range(10)
    }
    assert len(orders) == 100


def test_an_order_never_changes() -> None:
    """A saved position means the same samples for ever: these numbers were written down once."""
    assert epoch(Shuffled(10, seed=1), 0) == EPOCH_0
    assert epoch(Shuffled(10, seed=1), 1) == EPOCH_1
    assert Shuffled(10**12, seed=1)(7) == OF_MANY


@pytest.mark.parametrize("samples", [3, 4])
def test_all_permutations_come_equally_often(samples: int) -> None:
    """Chi-square over the epochs of one seed; the bounds are the 99.99 % quantiles."""
    epochs, order = 6000, Shuffled(samples, seed=5)
    counts = Counter(tuple(epoch(order, number)) for number in range(epochs))
    all_orders = list(permutations(range(samples)))
    expected = epochs / len(all_orders)
    statistic = sum((counts[o] - expected) ** 2 / expected for o in all_orders)
    assert statistic < {3: 25.7, 4: 58.6}[samples]


def test_neighbours_and_places_are_uncorrelated() -> None:
    samples = 10_000
    places = epoch(Shuffled(samples, seed=2), 3)
    next_places = epoch(Shuffled(samples, seed=2), 4)
    mean, variance = (samples - 1) / 2, (samples**2 - 1) / 12

    def correlation(pairs) -> float:
        return sum((a - mean) * (b - mean) for a, b in pairs) / samples / variance

    four_sigma = 4 / samples**0.5
    assert abs(correlation(enumerate(places))) < four_sigma
    assert abs(correlation(pairwise(places))) < four_sigma
    assert abs(correlation(zip(places, next_places, strict=True))) < four_sigma


def test_a_source_without_end_is_read_in_turn() -> None:
    assert [in_turn(number) for number in (0, 5, 10**9)] == [0, 5, 10**9]


def test_nothing_cannot_be_ordered() -> None:
    with pytest.raises(ValueError, match="at least one sample, found 0"):
        Shuffled(0, seed=1)

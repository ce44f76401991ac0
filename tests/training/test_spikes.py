"""The median of the newest gradient norms, and what is far above it."""

from __future__ import annotations

import json
from statistics import median

from hypothesis import given
from hypothesis import strategies as st

from engine.training.spikes import FEWEST, WINDOW, GradientNorms, is_spike

norms = st.floats(min_value=0, max_value=1e18)


@given(st.lists(norms, max_size=3 * WINDOW))
def test_the_median_is_that_of_the_newest(values):
    found = GradientNorms()
    for value in values:
        found.add(value)
    assert found.values() == values[-WINDOW:]
    if len(values) < FEWEST:
        assert found.median() is None
    else:
        assert found.median() == median(values[-WINDOW:])


@given(st.lists(norms, max_size=2 * WINDOW), st.lists(norms, max_size=WINDOW))
def test_norms_written_down_as_json_and_read_go_on_alike(before, after):
    unbroken, resumed = GradientNorms(before), GradientNorms(before)
    resumed = GradientNorms(json.loads(json.dumps(resumed.values())))
    for value in after:
        unbroken.add(value)
        resumed.add(value)
        assert resumed.median() == unbroken.median()


@given(norms, norms, st.floats(min_value=1.01, max_value=1e3))
def test_a_spike_is_above_its_factor_and_nothing_is_one_without(norm, usual, factor):
    assert is_spike(norm, usual, factor) == (norm > factor * usual)
    assert not is_spike(norm, None, factor)
    assert not is_spike(norm, usual, None)


@given(level=st.floats(min_value=1e-3, max_value=1e3), factor=st.floats(1.5, 100))
def test_a_level_that_rises_for_good_is_the_usual_one_after_half_a_window(level, factor):
    found = GradientNorms([level] * WINDOW)
    higher, skipped = 2 * factor * level, 0
    for _ in range(WINDOW):
        skipped += is_spike(higher, found.median(), factor)
        found.add(higher)
    # With as many low ones as high ones the median lies between: at 1 + 2k over 2.
    assert WINDOW // 2 <= skipped <= WINDOW // 2 + 1


@given(st.integers(0, WINDOW - 1), st.floats(2, 50))
def test_a_few_spikes_do_not_move_what_is_usual(place, factor):
    found = GradientNorms([1.0] * WINDOW)
    for number in range(2 * WINDOW):
        value = 1e6 if number % WINDOW == place else 1.0
        assert is_spike(value, found.median(), factor) == (value > 1)
        found.add(value)

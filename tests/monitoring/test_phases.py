"""The invariants of the phase timer."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.monitoring.phases import Phases


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def test_a_nested_phases_seconds_are_its_own_and_not_the_outer_ones() -> None:
    clock = Clock()
    phases = Phases(clock)
    clock.now += 1
    with phases("update"):
        clock.now += 2
        with phases("forward"):
            clock.now += 4
            with phases("update"):
                clock.now += 8
        clock.now += 16
    clock.now += 32
    assert phases.take() == {"update": 26, "forward": 4, "other": 33}
    assert phases.take() == {"other": 0}


TREES = st.recursive(
    st.floats(0, 10),
    lambda inner: st.lists(st.tuples(st.sampled_from("abc"), inner), max_size=4),
    max_leaves=12,
)


@given(st.lists(TREES, max_size=4))
def test_the_seconds_of_all_phases_add_up_to_the_time_since_the_last_take(trees) -> None:
    clock = Clock()
    phases = Phases(clock)

    def live(tree) -> None:
        if isinstance(tree, float):
            clock.now += tree
            return
        for name, inner in tree:
            with phases(name):
                live(inner)
            clock.now += 0.5

    for tree in trees:
        begin = clock.now
        live(tree)
        taken = phases.take()
        assert sum(taken.values()) == pytest.approx(clock.now - begin)
        assert list(taken)[-1] == "other"


def test_a_take_within_a_phase_divides_it() -> None:
    clock = Clock()
    phases = Phases(clock)
    with phases("update"):
        clock.now += 2
        assert phases.take() == {"update": 2, "other": 0}
        clock.now += 3
    assert phases.take() == {"update": 3, "other": 0}


def test_a_phase_that_raises_is_closed() -> None:
    clock = Clock()
    phases = Phases(clock)
    with pytest.raises(KeyError), phases("update"):
        clock.now += 2
        raise KeyError
    clock.now += 1
    assert phases.take() == {"update": 2, "other": 1}


def test_pending_work_is_awaited_before_the_clock_is_read() -> None:
    clock = Clock()
    pending = [5.0, 0.0]

    def synchronize() -> None:
        clock.now += pending.pop() if pending else 0.0

    phases = Phases(clock, synchronize)
    with phases("forward"):
        clock.now += 1  # the launch; the 5 seconds of work are still pending
    assert phases.take() == {"forward": 6, "other": 0}

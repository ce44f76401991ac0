"""Where a resumed run goes on in each source that it learns from."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.run.data_position import DataPosition

SEGMENTS = st.lists(
    st.tuples(
        st.sampled_from(["textbook", "web"]),
        st.integers(1, 40),  # samples of a step
        st.integers(0, 5),  # steps
        st.booleans(),  # whether the run is started again behind them
    ),
    max_size=8,
)


@given(SEGMENTS)
def test_no_sample_is_learned_twice_or_never(segments):
    """Whatever the order of sources, the sizes of batches and the moments of restarts."""
    position, step = DataPosition(0, {}), 0
    seen: dict[str, list[int]] = {}
    for source, batch, steps, restarted in segments:
        first = position.begin(source, batch, step)
        seen.setdefault(source, []).extend(range(first, first + steps * batch))
        step += steps
        if restarted:
            position = DataPosition(step, position.before(step))
    for numbers in seen.values():
        assert numbers == list(range(len(numbers)))


@pytest.mark.parametrize(("batch", "steps"), [(32, 25), (20, 10 + 24), (480, 10 + 1)])
def test_another_batch_size_leaves_no_conversation_out(batch, steps):
    """25 steps of 32 were planned, 10 are done: 480 samples are left, in steps of any size."""
    position = DataPosition(10, {"talks": 320})
    assert position.last_step("talks", 800, batch) == steps
    assert position.begin("talks", batch, 10) == 320
    assert position.before(12) == {"talks": 320 + 2 * batch}


def test_more_was_learned_than_is_asked_for_now():
    assert DataPosition(30, {"talks": 900}).last_step("talks", 800, 32) == 30


def test_a_checkpoint_that_does_not_say_what_it_learned_had_batches_of_one_size():
    position = DataPosition(10)
    assert position.last_step("talks", 480, 32) == 15
    assert position.begin("talks", 32, 10) == 320
    assert position.before(11) == {"talks": 352}

"""The learning rate by update number."""

from __future__ import annotations

from typing import get_args

import pytest

from engine.algorithms.learning_rate import Schedule, learning_rate


def test_hand_computed_values() -> None:
    linear = [
        learning_rate(u, peak=4.0, schedule="linear", warmup=2, total=6, minimum=2.0)
        for u in range(8)
    ]
    assert linear == [2.0, 4.0, 4.0, 3.5, 3.0, 2.5, 2.0, 2.0]
    cosine = [
        learning_rate(u, peak=4.0, schedule="cosine", warmup=1, total=5, minimum=2.0)
        for u in range(6)
    ]
    root = 2.0**-0.5
    assert cosine == pytest.approx([4.0, 4.0, 3.0 + root, 3.0, 3.0 - root, 2.0])
    constant = [learning_rate(u, peak=3.0, schedule="constant", warmup=3) for u in range(5)]
    assert constant == pytest.approx([1.0, 2.0, 3.0, 3.0, 3.0])


@pytest.mark.parametrize("schedule", get_args(Schedule))
@pytest.mark.parametrize("warmup", [0, 1, 5, 40])
def test_never_above_the_peak_never_zero_within_the_run(schedule: Schedule, warmup: int) -> None:
    total = 30
    rates = [
        learning_rate(u, peak=1e-3, schedule=schedule, warmup=warmup, total=total)
        for u in range(total)
    ]
    assert all(0.0 < rate <= 1e-3 for rate in rates)
    after = rates[warmup:]
    assert after == sorted(after, reverse=True)


def test_an_unknown_schedule_is_refused() -> None:
    with pytest.raises(ValueError, match="'step'"):
        learning_rate(3, peak=1.0, schedule="step", total=9)  # type: ignore[arg-type]

"""The line of a step, with and without a terminal."""

from __future__ import annotations

import io

import pytest
from example_run import example_lines

from engine.monitoring.console import REINFORCEMENT, Console, duration


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


SCALARS = {
    "reward/accuracy": 0.539,
    "reward/mean": 1.3168,
    "rollout/response_length": 36.2,
    "training/kl": 0.00213,
    "speed/tokens_per_second": 2310.4,
}


def test_the_line_of_a_step() -> None:
    stream, clock = io.StringIO(), Clock()
    console = Console(90, REINFORCEMENT, first_step=10, stream=stream, clock=clock)
    clock.now += 2.9
    console.step(10, SCALARS)
    clock.now += 0.9
    console.step(11, SCALARS)
    console.close()
    assert stream.getvalue().splitlines()[1] == (
        "step 12/90  accuracy 0.54  reward  1.32  length    36  kl 0.0021"
        "   0.90 s/step    2,310 tok/s  ETA 2m28s"
    )


def test_utilisation_stands_behind_the_speed_where_it_is_known() -> None:
    stream = io.StringIO()
    with Console(2, (), stream=stream) as console:
        console.step(0, {**SCALARS, "speed/mfu_update": 0.4123})
        console.step(1, SCALARS)
    with_it, without = stream.getvalue().splitlines()[-2:]
    assert "2,310 tok/s  MFU 41.2%  ETA" in with_it
    assert "MFU" not in without


def test_lines_are_aligned_even_where_a_metric_is_missing() -> None:
    stream, clock = io.StringIO(), Clock()
    with Console(100, REINFORCEMENT, stream=stream, clock=clock) as console:
        for line in example_lines(99):
            clock.now += 12.3
            console.step(line["step"], line if line["step"] % 5 else {})
    lines = stream.getvalue().splitlines()
    assert len(lines) == 100
    assert len({line.index("tok/s") for line in lines}) == 1
    assert lines[0].startswith("step   1/100  accuracy    -  reward     -")
    assert lines[-1].endswith("ETA 0s")


def test_no_bar_where_there_is_no_terminal() -> None:
    stream = io.StringIO()
    with Console(3, (), stream=stream) as console:
        for step in range(3):
            console.step(step, {})
        console.say("done")
    assert "\r" not in stream.getvalue()
    assert stream.getvalue().count("\n") == 4


def test_a_bar_with_the_remaining_time_on_a_terminal() -> None:
    stream = Terminal()
    with Console(8, (), first_step=2, stream=stream) as console:
        console.step(2, {})
        console.step(3, {})
    assert "4/8" in stream.getvalue()
    assert "\r" in stream.getvalue()


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0s"), (59.4, "59s"), (59.6, "1m00s"), (151, "2m31s"), (3599.7, "1h00m"), (7322, "2h02m")],
)
def test_duration(seconds: float, text: str) -> None:
    assert duration(seconds) == text


def test_a_line_may_stand_for_several_steps():
    stream, now = io.StringIO(), iter([0.0, 10.0, 20.0])
    console = Console(100, (), stream=stream, clock=lambda: next(now))
    console.step(24, {})
    console.step(49, {})
    first, second = stream.getvalue().splitlines()
    assert "0.40 s/step" in first and "ETA 30s" in first
    assert "0.40 s/step" in second and "ETA 20s" in second

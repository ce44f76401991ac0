"""The line of a step, with and without a terminal."""

from __future__ import annotations

import io

import pytest
from example_run import BASE, FINAL, example_lines

from engine.monitoring.console import Console, comparison_table, duration


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
    console = Console(90, first_step=10, stream=stream, clock=clock)
    clock.now += 2.9
    console.step(10, SCALARS)
    clock.now += 0.9
    console.step(11, SCALARS)
    console.close()
    assert stream.getvalue().splitlines()[1] == (
        "step 12/90  accuracy 0.54  reward  1.32  length    36  kl 0.0021"
        "   0.90 s/step    2,310 tok/s  ETA 2m28s"
    )


@pytest.mark.parametrize(
    ("scalars", "line"),
    [
        ({"training/loss": 2.5, "training/kl": 0.1}, "step 1/2  loss 2.5000   "),
        ({}, "step 1/2   "),
        (
            {"reward/my_folder.brevity": -0.25, "reward/mean": -0.25, "training/loss": 0.0},
            "step 1/2  brevity -0.25  reward -0.25   ",
        ),
        (
            {"reward/format": 1.0, "reward/mean": 1.0, "evaluation/accuracy": 0.5},
            "step 1/2  format 1.00  reward  1.00   ",
        ),
    ],
    ids=["no rewards", "nothing", "one of one's own", "no accuracy in training"],
)
def test_the_line_names_what_occurs(scalars: dict[str, float], line: str) -> None:
    stream, clock = io.StringIO(), Clock()
    console = Console(2, stream=stream, clock=clock)
    clock.now += 1
    console.step(0, scalars)
    assert stream.getvalue().startswith(line)


def test_the_last_words_compare_every_reward() -> None:
    assert comparison_table(BASE, FINAL) == [
        "",
        "held-out problems: 256, answers: 256",
        "                           base   final",
        "  accuracy, share right   0.125   0.938",
        "  format, share right     0.450   1.000",
        "  language, mean value    0.713   0.954",
        "  mean response, tokens    22.2    43.5",
    ]


def test_utilisation_stands_behind_the_speed_where_it_is_known() -> None:
    stream = io.StringIO()
    with Console(2, stream=stream) as console:
        console.step(0, {**SCALARS, "speed/mfu_update": 0.4123})
        console.step(1, SCALARS)
    with_it, without = stream.getvalue().splitlines()[-2:]
    assert "2,310 tok/s  MFU 41.2%  ETA" in with_it
    assert "MFU" not in without


def test_lines_are_aligned_even_where_a_metric_is_missing() -> None:
    stream, clock = io.StringIO(), Clock()
    with Console(100, stream=stream, clock=clock) as console:
        for line in example_lines(99):
            clock.now += 12.3
            console.step(line["step"], {} if line["step"] % 5 == 3 else line)
    lines = stream.getvalue().splitlines()
    assert len(lines) == 100
    assert len({line.index("tok/s") for line in lines}) == 1
    assert lines[3].startswith(
        "step   4/100  accuracy    -  format    -  language    -  reward     -"
    )
    assert lines[-1].endswith("ETA 0s")


def test_no_bar_where_there_is_no_terminal() -> None:
    stream = io.StringIO()
    with Console(3, stream=stream) as console:
        for step in range(3):
            console.step(step, {})
        console.say("done")
    assert "\r" not in stream.getvalue()
    assert stream.getvalue().count("\n") == 4


def test_a_bar_with_the_remaining_time_on_a_terminal() -> None:
    stream = Terminal()
    with Console(8, first_step=2, stream=stream) as console:
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
    console = Console(100, stream=stream, clock=lambda: next(now))
    console.step(24, {})
    console.step(49, {})
    first, second = stream.getvalue().splitlines()
    assert "0.40 s/step" in first and "ETA 30s" in first
    assert "0.40 s/step" in second and "ETA 20s" in second

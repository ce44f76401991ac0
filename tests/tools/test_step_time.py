"""The split of a step: medians of the right steps, what was not sampling, ratios, old records."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from engine.errors import RunError
from tools.benchmarks.step_time import split, table


def write(run: Path, *lines: dict[str, float]) -> Path:
    run.mkdir()
    text = "".join(json.dumps({"step": step, **line}) + "\n" for step, line in enumerate(lines))
    (run / "metrics.jsonl").write_text(text)
    return run


def line(wait: float, sampling: float, **more: float) -> dict[str, float]:
    return {
        "seconds/wait_for_rollout": wait,
        "speed/sampling_seconds": sampling,
        "speed/seconds_per_step": wait + 1,
        **{name.replace("__", "/"): value for name, value in more.items()},
    }


def test_medians_leave_out_the_first_steps_and_evaluations_are_no_waiting(tmp_path):
    run = write(
        tmp_path / "run",
        line(90, 1),
        line(90, 1),
        line(3, 2, speed__start_seconds=0.25),
        line(5, 3, speed__start_seconds=0.5),
        line(50, 4, evaluation__response_length=7),
    )
    found = split(run, first=2, last=None)
    assert found.steps == 3
    assert found.seconds == {
        "wait for rollout": 5,
        "  sampling": 3,
        "  start": 0.375,
        "  not sampling": 1.5,
        "step": 6,
    }
    assert split(run, first=2, last=2).seconds["  not sampling"] == 1


def test_runs_stand_side_by_side_with_ratios_to_the_first(tmp_path):
    before = write(tmp_path / "before", line(4, 2))
    after = write(tmp_path / "after", line(3, 2, speed__delivery_seconds=0.5))
    shown = table([split(run, first=0, last=None) for run in (before, after)])
    rows = {text[:20].strip(): text[20:].split() for text in shown.splitlines()[2:]}
    assert rows["wait for rollout"] == ["4.000", "s", "3.000", "s", "0.75x"]
    assert rows["not sampling"] == ["2.000", "s", "1.000", "s", "0.50x"]
    assert rows["delivery"] == ["0.500", "s"]
    assert rows["push"] == []


def test_a_run_that_does_not_sample_is_refused(tmp_path):
    run = write(tmp_path / "run", {"seconds/other": 1.0}, {"seconds/other": 1.0})
    with pytest.raises(RunError, match="no step from 0 on that took a rollout"):
        split(run, first=0, last=None)

"""metrics.jsonl under kills and restarts."""

from __future__ import annotations

import json
import math
import resource
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from engine.errors import RunError
from engine.monitoring.metrics_file import MetricsFile, read_metrics

on_any_file = settings(suppress_health_check=[HealthCheck.function_scoped_fixture])


def write(path: Path, steps, first_step: int = 0) -> None:
    with MetricsFile(path, first_step) as lines:
        for step in steps:
            lines.append(step, {"training/kl": step / 7})


@on_any_file
@given(
    steps=st.sets(st.integers(0, 40), max_size=12),
    first_step=st.integers(0, 42),
    torn=st.sampled_from([b"", b'{"step": 41, "x"', b"\xff\xfe", b'{"step": 1}', b"{"]),
)
def test_a_run_that_goes_on_at_step_k_keeps_every_line_below_k_as_it_was_and_none_from_k_on(
    tmp_path: Path, steps, first_step: int, torn: bytes
) -> None:
    path = tmp_path / "metrics.jsonl"
    path.unlink(missing_ok=True)
    write(path, sorted(steps))
    before = path.read_bytes().splitlines()
    path.write_bytes(path.read_bytes() + torn)  # killed in the middle of a write
    write(path, [first_step], first_step)
    after = path.read_bytes().splitlines()
    assert after[:-1] == before[: sum(step < first_step for step in steps)]
    assert json.loads(after[-1]) == {"step": first_step, "training/kl": first_step / 7}


@on_any_file
@given(starts=st.lists(st.tuples(st.integers(0, 9), st.integers(1, 9)), min_size=1, max_size=6))
def test_steps_increase_strictly_from_line_to_line_whatever_was_killed_and_started_again(
    tmp_path: Path, starts
) -> None:
    path = tmp_path / "metrics.jsonl"
    path.unlink(missing_ok=True)
    reached = 0
    for back, ahead in starts:
        first_step = max(0, reached - back)
        reached = first_step + ahead
        write(path, range(first_step, reached), first_step)
    steps = [line["step"] for line in read_metrics(path)]
    assert steps == sorted(set(steps))
    assert steps[-1] == reached - 1


def test_a_line_is_on_disk_before_append_returns(tmp_path: Path) -> None:
    """A process that kills itself right after append leaves the whole line."""
    path = tmp_path / "metrics.jsonl"
    program = (
        "import os, signal, sys; from pathlib import Path;"
        "from engine.monitoring.metrics_file import MetricsFile;"
        "lines = MetricsFile(Path(sys.argv[1]), 0); lines.append(3, {'a': 1.5});"
        "os.kill(os.getpid(), signal.SIGKILL)"
    )
    ended = subprocess.run([sys.executable, "-c", program, str(path)], check=False)
    assert ended.returncode == -signal.SIGKILL
    assert read_metrics(path) == [{"step": 3, "a": 1.5}]


def test_an_earlier_step_is_refused(tmp_path: Path) -> None:
    with MetricsFile(tmp_path / "metrics.jsonl", 5) as lines:
        for step in (4, 2):
            with pytest.raises(ValueError, match="comes after"):
                lines.append(step, {})


def test_what_is_not_finite_becomes_null_and_the_file_stays_json(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    with MetricsFile(path, 0) as lines:
        lines.append(0, {"nan": math.nan, "inf": -math.inf, "one": 1.0, "count": 7})
    assert path.read_text() == '{"step": 0, "nan": null, "inf": null, "one": 1.0, "count": 7}\n'


@pytest.mark.parametrize("damage", ["not json", '{"no": "step"}', "[1]", '{"step": null}', ""])
def test_damage_in_the_middle_is_reported_with_its_line(tmp_path: Path, damage: str) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_text(f'{{"step": 0}}\n{damage}\n{{"step": 2}}\n')
    before = path.read_bytes()
    with pytest.raises(RunError, match=r"line 2 of .*metrics\.jsonl is damaged"):
        MetricsFile(path, 3)
    assert path.read_bytes() == before


def test_a_full_disk_is_one_clear_sentence_and_costs_only_the_line_at_hand(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    write(path, range(3))
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    lines = MetricsFile(path, 3)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (path.stat().st_size + 20, hard))
        with pytest.raises(RunError, match=r"cannot write .*metrics\.jsonl: File too large"):
            lines.append(3, {"training/kl": 0.5})
    finally:
        lines.close()
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    write(path, [3], first_step=3)
    assert [line["step"] for line in read_metrics(path)] == [0, 1, 2, 3]


def test_a_place_that_cannot_be_written_is_one_clear_sentence(tmp_path: Path) -> None:
    (tmp_path / "run").write_text("a file where the run's folder should be")
    with pytest.raises(
        RunError, match=r"cannot write .*metrics\.jsonl: (Not a directory|File exists)"
    ):
        MetricsFile(tmp_path / "run" / "metrics.jsonl", 0)

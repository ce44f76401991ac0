"""The benchmark of training steps: rows exist, ratios are right, a refusal stops nothing."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from engine.config.training import TrainingConfig
from tools.benchmarks.training.results import Turns, Work, failure, line, result, spread
from tools.benchmarks.training.variants import BASELINE, variants

H100 = "NVIDIA H100 80GB HBM3"
WORK = Work(flops=4 * 989 * 10**12, tokens=6000, processes=2, device=H100)


def turns(precision: str, *seconds: float, peak: int = 1000) -> Turns:
    return Turns(precision=precision, seconds=list(seconds), peak_bytes=peak)


@pytest.mark.parametrize("gpu", [True, False])
def test_every_row_is_a_valid_configuration(gpu):
    rows = variants(gpu)
    assert rows[0].name == BASELINE and not rows[0].keys
    assert len({row.name for row in rows}) == len(rows)
    for row in rows:
        TrainingConfig(dtype="bfloat16", tokens_per_microbatch=64, **row.keys)


def test_ratios_are_against_the_baseline_and_utilisation_against_the_rows_own_peak():
    base = turns("bfloat16", 4.0, 5.0, 4.0)
    row = result("fp8", {"fp8": "blockwise"}, turns("fp8", 2.0, 1.0, 2.0, peak=750), base, WORK)
    assert (row.step_seconds, row.tokens_per_second) == (2.0, 3000)
    assert row.tokens_per_second_per_process == 1500
    assert (row.speed, row.memory) == (2.0, 0.75)
    assert row.mfu == pytest.approx(989 / 1979)
    assert result("", {}, base, base, WORK).mfu == pytest.approx(0.5)
    assert spread(base) == pytest.approx(0.25)


def test_a_row_that_did_not_run_has_a_reason_and_no_numbers():
    outcome, reason = failure("rank 0 of LayoutConfig(): Traceback\n  ...\nValueError: no\n")
    assert (outcome, reason) == ("failed", "ValueError: no")
    outcome, reason = failure("Traceback\ntorch.OutOfMemoryError: CUDA out of memory. Tried 9 GiB")
    assert outcome == "out of memory"
    lost = Turns(outcome=outcome, reason=reason)
    row = result("recompute none", {}, lost, turns("bfloat16", 1.0), WORK)
    assert row.speed is row.mfu is row.peak_bytes is None
    assert line(row).split(maxsplit=2)[2] == f"out of memory: {reason}"


@pytest.mark.parametrize("lost", ["refused", "out of memory"])
def test_rows_stand_without_ratios_where_the_baseline_did_not_run(lost):
    base = Turns(outcome=lost, reason="why")
    row = result("recompute full", {}, turns("bfloat16", 1.0), base, WORK)
    assert row.speed is row.memory is None and row.tokens_per_second == 6000
    assert "x" not in line(row)


@pytest.mark.slow
def test_a_table_from_real_steps(tmp_path: Path):
    file = tmp_path / "results.json"
    words = "--processes 1 --samples 4 --median 40 --limit 64 --tokens-per-microbatch 128"
    words += f" --steps 1 --rounds 1 --json {file} --rows"
    command = [sys.executable, "-m", "tools.benchmarks.training", *words.split()]
    done = subprocess.run(
        [*command, "fp8 blockwise", "recompute full"],
        env={**os.environ, "CUDA_VISIBLE_DEVICES": ""},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    report = json.loads(file.read_text())
    (table,) = report["models"]
    base, fp8, full = table["rows"]
    assert [row["name"] for row in table["rows"]] == [BASELINE, "fp8 blockwise", "recompute full"]
    assert report["environment"]["packages"]["torch"] and report["date"]
    assert base["speed"] == base["memory"] == 1.0
    assert base["tokens_per_second"] == pytest.approx(table["step"]["tokens"] / base["seconds"][0])
    assert base["peak_bytes"] > 0 and base["kernels"]["linear"]
    assert full["loss"] == pytest.approx(base["loss"], abs=1e-6)
    assert fp8["outcome"] == "refused" and "float32" in fp8["reason"]
    assert "fp8 blockwise         refused: fp8: expected none" in done.stdout


@pytest.mark.slow
def test_an_unknown_row_is_named_before_anything_starts():
    command = [sys.executable, "-m", "tools.benchmarks.training", "--rows", "fp9"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr.startswith("error: --rows: expected some of baseline, fp8 blockwise")
    assert done.stderr.rstrip().endswith("found fp9")

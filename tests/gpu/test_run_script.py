"""run.sh on a CPU: what it leaves, what a failing step and a second call do."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parent / "run.sh"


def run(*arguments: object, venv: str = sys.prefix) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["bash", str(SCRIPT), *map(str, arguments)],
        env={**os.environ, "R1_VENV": venv, "CUDA_VISIBLE_DEVICES": ""},
        capture_output=True,
        text=True,
        check=False,
    )


def steps(folder: Path) -> dict[str, tuple[str, str | None]]:
    rows = json.loads((folder / "summary.json").read_text())
    return {row["step"]: (row["status"], row["file"]) for row in rows}


@pytest.mark.slow
def test_a_failing_step_is_told_and_the_others_go_on_and_a_second_call_adds(tmp_path: Path) -> None:
    (tmp_path / "log_probability.json").mkdir()  # cannot be written
    first = run(tmp_path, "log_probability", "loading")
    assert first.returncode == 1, first.stderr
    assert "no CUDA device: tests will be skipped, benchmarks are tiny" in first.stdout
    assert steps(tmp_path)["log_probability"][0] == "failed"
    assert steps(tmp_path)["loading"] == ("passed", "loading.json")
    (tmp_path / "log_probability.json").rmdir()

    second = run(tmp_path, "log_probability", "test_loaders_on_gpu")
    assert second.returncode == 0, second.stdout + second.stderr
    assert steps(tmp_path) == {
        "environment": ("passed", "environment.json"),
        "log_probability": ("passed", "log_probability.json"),
        "loading": ("passed", "loading.json"),
        "test_loaders_on_gpu": ("passed", "test_loaders_on_gpu.xml"),
    }
    assert "no CUDA device" in (tmp_path / "test_loaders_on_gpu.xml").read_text()
    assert json.loads((tmp_path / "environment.json").read_text())["device"] == "cpu"


def test_what_cannot_start_says_so(tmp_path: Path) -> None:
    unknown = run("--fast")
    assert unknown.returncode == 2 and unknown.stderr.startswith("usage:")
    assert run(tmp_path, "one folder too many").returncode == 2
    missing = run(tmp_path, venv=str(tmp_path / "none"))
    assert missing.returncode == 2 and "no Python at" in missing.stderr


def test_help_names_every_step() -> None:
    shown = run("--help")
    assert shown.returncode == 0
    for name in ("training-qwen3", "training-levers", "loading", "test_fp8_on_gpu"):
        assert f" {name}\n" in shown.stdout

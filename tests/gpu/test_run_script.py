"""run.sh on a CPU: what it leaves, what it refuses, and what each of its variables does."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parent / "run.sh"
NO_GPU = "no CUDA device: tests will be skipped, benchmarks are tiny"


def run(*arguments: object, **variables: object) -> subprocess.CompletedProcess[str]:
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("R1_")}
    asked = {name: str(value) for name, value in variables.items()}
    return subprocess.run(
        ["bash", str(SCRIPT), *map(str, arguments)],
        env={**inherited, "R1_VENV": sys.prefix, "CUDA_VISIBLE_DEVICES": "", **asked},
        capture_output=True,
        text=True,
        check=False,
    )


def steps(folder: Path) -> dict[str, tuple[str, str | None]]:
    rows = json.loads((folder / "summary.json").read_text())
    return {row["step"]: (row["status"], row["file"]) for row in rows}


def module(folder: Path, name: str, text: str = "") -> Path:
    """A package that comes first where ``folder`` is in PYTHONPATH."""
    (folder / name).mkdir(parents=True)
    (folder / name / "__init__.py").write_text(text)
    return folder


def pretended_gpu(folder: Path) -> Path:
    """Packages that import at once, a torch among them that speaks of a GPU."""
    module(folder, "torch", "class cuda:\n    is_available = staticmethod(lambda: True)\n")
    for name in ("megatron", "megatron/core", "megatron/core/package_info"):
        module(folder, name)
    return folder


@pytest.mark.slow
def test_a_failing_step_is_told_and_the_others_go_on_and_a_second_call_adds(tmp_path: Path) -> None:
    """The failing one is the benchmark of loaders, where DALI is not installed."""
    out = tmp_path / "out"
    asked = ("smoke", "served", "loading", "log_probability")
    first = run(out, *asked, PYTHONPATH=module(tmp_path / "without_dali", "nvidia"))
    assert first.returncode == 1, first.stderr
    assert NO_GPU in first.stdout
    assert "== smoke: skipped (needs a GPU)" in first.stdout
    assert "dali needs the package nvidia-dali-cuda130, which is not installed" in first.stdout
    assert steps(out) == {
        "smoke": ("skipped", None),
        "served": ("skipped", None),
        "environment": ("passed", "environment.json"),
        "loading": ("failed", None),
        "log_probability": ("passed", "log_probability.json"),
    }

    second = run(out, "smoke", "loading", "test_loaders_on_gpu", R1_ARCHIVE=tmp_path / "all.tar.gz")
    assert second.returncode == 0, second.stdout + second.stderr
    assert steps(out) == {
        "smoke": ("skipped", None),
        "served": ("skipped", None),
        "environment": ("passed", "environment.json"),
        "loading": ("passed", "loading.json"),
        "log_probability": ("passed", "log_probability.json"),
        "test_loaders_on_gpu": ("passed", "test_loaders_on_gpu.xml"),
    }
    assert "no CUDA device" in (out / "test_loaders_on_gpu.xml").read_text()
    assert json.loads((out / "environment.json").read_text())["device"] == "cpu"
    with tarfile.open(tmp_path / "all.tar.gz") as archive:
        assert set(archive.getnames()) == {file.name for file in out.iterdir()}


@pytest.mark.slow
def test_what_is_asked_of_training_reaches_it(tmp_path: Path) -> None:
    rows = "fp8 blockwise; recompute full"
    sizes = {"R1_ROUNDS": 1, "R1_STEPS": 2, "R1_ROW_SECONDS": 99}
    done = run(tmp_path, "training-options", R1_ROWS=rows, **sizes)
    assert done.returncode == 0, done.stdout + done.stderr
    found = json.loads((tmp_path / "training-options.json").read_text())
    (model,) = found["models"]
    assert [row["name"] for row in model["rows"][1:]] == ["fp8 blockwise", "recompute full"]
    settings = found["settings"]
    assert (settings["rounds"], settings["steps"], settings["row_seconds"]) == (1, 2, 99)


@pytest.mark.slow
def test_two_files_of_tests_run_at_the_same_time_if_asked_to(tmp_path: Path) -> None:
    pair = ("test_loaders_on_gpu", "test_log_probability_on_gpu")
    done = run(tmp_path, *pair, R1_JOBS=2)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.index(f"== {pair[1]}\n") < done.stdout.index(f"== {pair[0]}: passed")


@pytest.mark.slow
@pytest.mark.serial
def test_a_call_ends_when_its_time_is_over(tmp_path: Path) -> None:
    done = run(tmp_path, "loading", R1_LIMIT=1)
    assert done.returncode == 1
    assert steps(tmp_path) == dict.fromkeys(("environment", "loading"), ("no time left", None))


def test_a_transformer_engine_that_breaks_is_named_with_its_reason(tmp_path: Path) -> None:
    """What its import raises is no ImportError where its library and torch extension disagree."""
    packages = pretended_gpu(tmp_path / "packages")
    module(packages, "transformer_engine", "raise AssertionError('versions differ')")
    done = run(tmp_path / "out", PYTHONPATH=packages)
    assert done.returncode == 2
    assert "missing: transformer-engine (AssertionError: versions differ). Run" in done.stderr
    assert not (tmp_path / "out").exists()


def test_a_step_that_lacks_a_package_fails_by_name(tmp_path: Path) -> None:
    packages, out = pretended_gpu(tmp_path / "packages"), tmp_path / "out"
    for name in ("transformer_engine", "transformer_engine/pytorch"):
        module(packages, name)
    module(packages, "sglang", "raise RuntimeError('another CUDA')")
    done = run(out, "served", "smoke", PYTHONPATH=packages, R1_LIMIT=1)
    assert done.returncode == 1
    assert "== served: failed (needs sglang (RuntimeError: another CUDA))" in done.stdout
    assert steps(out)["smoke"] == ("no time left", None)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("R1_LIMIT", "ten minutes"),
        ("R1_JOBS", "0"),
        ("R1_ROUNDS", "-1"),
        ("R1_STEPS", "1.5"),
        ("R1_ROW_SECONDS", "9s"),
        ("R1_ARCHIVE", "results.zip"),
    ],
)
def test_a_bad_value_is_refused_before_anything_starts(
    tmp_path: Path, name: str, value: str
) -> None:
    done = run(tmp_path / "out", **{name: value})
    assert done.returncode == 2 and done.stdout == ""
    assert done.stderr.startswith(f"error: {name} must ") and done.stderr.count("\n") == 1
    assert repr(value) in done.stderr
    assert not (tmp_path / "out").exists()


def test_what_cannot_start_says_so(tmp_path: Path) -> None:
    for words in (["--fast"], ["trainin"], [tmp_path, tmp_path / "one too many"]):
        unknown = run(*words)
        assert unknown.returncode == 2 and unknown.stderr.startswith("usage:"), words
    missing = run(tmp_path, R1_VENV=tmp_path / "none")
    assert missing.returncode == 2 and "no Python at" in missing.stderr


def test_help_needs_no_environment_and_names_every_step_and_variable(tmp_path: Path) -> None:
    shown = run("--help", R1_VENV=tmp_path / "none")
    assert shown.returncode == 0
    for name in ("smoke", "training", "training-options", "test_fp8_on_gpu", "served"):
        assert f" {name}\n" in shown.stdout
    for name in ("LIMIT", "JOBS", "ROWS", "ROUNDS", "STEPS", "ROW_SECONDS", "ARCHIVE"):
        assert f"R1_{name}" in shown.stdout

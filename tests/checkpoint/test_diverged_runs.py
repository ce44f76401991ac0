"""A run that diverges at step 5 ends with the cause, and goes on from step 5 with the old rate."""

from __future__ import annotations

import json
import math
import shutil
from pathlib import Path
from typing import Any

import pytest
from killed_trainer import start
from test_kills import configuration

from engine.monitoring.metrics_file import read_metrics
from engine.platform import accelerator

accelerator.prepare()

from engine.training import trained_model  # noqa: E402

pytestmark = pytest.mark.slow

DIVERGES, STEPS = 5, 7


def blind_to_growth() -> None:
    """Let an update through that blows the weights up, as one would that does so bit by bit."""
    trained_model.LARGEST_GROWTH = math.inf


def run(
    run_dir: Path, ranks: int, steps: int, *, asynchronous: bool, lr: float, ready: Any = None
) -> list[int]:
    """Run ``recipes.base`` for so many steps with keep=1; the exit status of every rank."""
    stage = {"corpus": "web", "documents_per_step": 4, "steps": steps, "optimizer": {"lr": lr}}
    config = configuration(run_dir) | {
        "layout": {"processes": ranks, "ep": ranks},
        "stages": [stage],
        "checkpoint": {"every": 1, "keep": 1, "asynchronous": asynchronous},
    }
    started = start(config, ready)
    for process in started:
        process.join(120)
    return [process.exitcode for process in started]


def weights(run_dir: Path) -> bytes:
    return (run_dir / "model" / "model.safetensors").read_bytes()


def names(folder: Path) -> list[str]:
    return sorted(entry.name for entry in folder.iterdir())


@pytest.fixture(scope="module", params=[1, 2], ids=["one rank", "two ranks"])
def begun(request, tmp_path_factory) -> tuple[int, Path, bytes]:
    """Ranks, the folder of a run to step 5, and the weights of one that never stopped there."""
    folder, ranks = tmp_path_factory.mktemp("runs"), request.param
    for name, steps in (("undisturbed", STEPS), ("begun", DIVERGES)):
        done = run(folder / name, ranks, steps, asynchronous=True, lr=1e-3)
        assert done == [0] * ranks, (folder / name / "0.log").read_text()[-3000:]
    return ranks, folder / "begun", weights(folder / "undisturbed")


@pytest.mark.parametrize("asynchronous", [True, False], ids=["asynchronous", "synchronous"])
def test_it_names_the_cause_and_goes_on_as_if_it_had_never_diverged(begun, tmp_path, asynchronous):
    ranks, source, undisturbed = begun
    run_dir = tmp_path / "run"
    shutil.copytree(source, run_dir)
    before = weights(run_dir)

    options = {"ranks": ranks, "steps": STEPS, "asynchronous": asynchronous}
    assert run(run_dir, **options, lr=1e30) == [1] * ranks
    for rank in range(ranks):
        said = (run_dir / f"{rank}.log").read_text().strip().splitlines()[-1]
        assert said.startswith(f"error: training diverged at step {DIVERGES}, minibatch 0: ")
        assert "learning rate of 1e+30" in said and "lower optimizer.lr" in said
        assert f"the newest checkpoint in {run_dir} is of step {DIVERGES}" in said
    assert names(run_dir / "checkpoints") == [f"{DIVERGES:06d}"]
    assert weights(run_dir) == before
    lines = read_metrics(run_dir / "metrics.jsonl")
    assert None not in [value for line in lines for value in line.values()]

    assert run(run_dir, **options, lr=1e-3) == [0] * ranks
    assert weights(run_dir) == undisturbed
    assert names(run_dir / "checkpoints") == [f"{STEPS:06d}"]
    progress = json.loads((run_dir / "checkpoints" / f"{STEPS:06d}" / "run.json").read_text())
    assert len(progress["progress"]["update_guard"]["gradient_norms"]) == STEPS


@pytest.mark.parametrize(
    ("steps", "asynchronous"), [(STEPS, True), (STEPS, False), (DIVERGES + 1, True)]
)
def test_weights_that_only_the_next_gradient_finds_bad_leave_no_checkpoint(
    begun, tmp_path, steps, asynchronous
):
    """Also where no update follows the one that made them."""
    ranks, source, _ = begun
    run_dir = tmp_path / "run"
    shutil.copytree(source, run_dir)
    before = weights(run_dir)
    options = {"ranks": ranks, "steps": steps, "asynchronous": asynchronous}
    assert run(run_dir, **options, lr=1e15, ready=blind_to_growth) == [1] * ranks
    said = (run_dir / "0.log").read_text().strip().splitlines()[-1]
    assert said.startswith(f"error: training diverged at step {DIVERGES + 1}")
    assert f"is of step {DIVERGES};" in said
    assert names(run_dir / "checkpoints") == [f"{DIVERGES:06d}"]
    assert weights(run_dir) == before

"""A start that cannot go on with what the run has made is refused before anything starts."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from engine.config.reader.loading import load
from engine.preflight.finding import Finding
from engine.preflight.preflight import CHECKS
from engine.preflight.sections import Sections
from engine.run.run_checks import checks
from recipes import sft, zero

QUICKSTART = Path(__file__).parents[2] / "recipes" / "configs" / "quickstart"


def found(recipe: Any, run_dir: Path, *overrides: str, **wrong: None) -> list[Finding]:
    """Return what is found in the run's own folder; keys in ``wrong`` are left out."""
    name = recipe.__name__.rpartition(".")[2]
    file = QUICKSTART / f"{name}.yaml"
    config = load(recipe.Config, file, [f"run_dir={run_dir}", *overrides])
    values = {key: getattr(config, key) for key in type(config).model_fields if key not in wrong}
    mine = checks(f"recipes.{name}", recipe.Config)[len(CHECKS) :]
    return [finding for check in mine for finding in check(Sections(values, print))]


def finish(run_dir: Path) -> None:
    """Let the folder's run be one of 12 steps that is finished, but for its model."""
    config = load(zero.Config, QUICKSTART / "zero.yaml", [f"run_dir={run_dir}", "steps=12"])
    result = {"recipe": "recipes.zero", "config": config.model_dump(mode="json"), "steps": 12}
    (run_dir / "result.json").write_text(json.dumps(result))


@pytest.fixture
def made_twelve(tmp_path: Path) -> Path:
    (tmp_path / "checkpoints" / "000012").mkdir(parents=True)
    (tmp_path / "checkpoints" / "000013.damaged").mkdir()
    return tmp_path


def test_fewer_steps_than_were_made_are_refused_with_the_number(made_twelve: Path):
    assert found(zero, made_twelve, "steps=12") == []
    (one,) = found(zero, made_twelve, "steps=11", optimizer=None)
    assert one.key == ("steps",)
    assert one.says.startswith("11 are asked for") and "has made 12 already" in one.says


def test_a_recipe_that_counts_its_steps_itself_is_not_asked(made_twelve: Path):
    assert found(sft, made_twelve) == []


@pytest.mark.parametrize("changed", ["optimizer.lr=0.25", "rollout.temperature=0.5"])
def test_a_finished_run_of_other_settings_is_refused_with_the_key(made_twelve: Path, changed: str):
    finish(made_twelve)
    assert found(zero, made_twelve, "steps=12") == []
    (one,) = found(zero, made_twelve, "steps=12", changed)
    assert one.key == ("run_dir",)
    assert f"another {changed.partition('=')[0]}" in one.says
    assert found(zero, made_twelve, "steps=13", changed) == []


@pytest.mark.parametrize("steps", [12, 15])
def test_a_finished_run_without_checkpoint_and_rollouts_is_not_made_anew(
    tmp_path: Path, steps: int
):
    finish(tmp_path)
    (one,) = found(zero, tmp_path, f"steps={steps}")
    assert one.key == ("run_dir",)
    assert f"go on from in {tmp_path}/checkpoints, since the run has made 12" in one.says
    rollout = tmp_path / "rollouts" / "000000"
    rollout.mkdir(parents=True)
    (rollout / "done.json").touch()
    assert found(zero, tmp_path, f"steps={steps}") == []


def test_a_finished_run_that_has_its_model_needs_no_checkpoint(tmp_path: Path):
    finish(tmp_path)
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "config.json").write_text("{}")
    assert found(zero, tmp_path, "steps=12") == []


def test_a_checkpoint_under_another_number_is_told_before_a_start(made_twelve: Path):
    (made_twelve / "checkpoints" / "000012" / "run.json").write_text('{"step": 9}')
    (one,) = found(zero, made_twelve, "steps=20")
    assert one.key == ("run_dir",) and "000012 is of step 9, not of that" in one.says


def test_a_damaged_line_of_metrics_is_told_before_a_start(made_twelve: Path):
    file = made_twelve / "metrics.jsonl"
    file.write_text('{"step": 0}\nnonsense\n{"step": 2}\n{"st')  # the last was cut by a crash
    (one,) = found(zero, made_twelve, "steps=20")
    assert one.key == ("run_dir",) and f"line 2 of {file} is damaged" in one.says
    file.write_text(file.read_text().replace("nonsense", '{"step": 1}'))
    assert found(zero, made_twelve, "steps=20") == []


def test_a_run_does_not_train_the_model_that_it_replaces(made_twelve: Path):
    for inside in (made_twelve, made_twelve / "model"):
        (one,) = found(zero, made_twelve, "steps=20", f"model={inside}")
        assert one.key == ("model",) and "outside of run_dir, which the run replaces" in one.says
    assert found(zero, made_twelve, "steps=20", f"model={made_twelve}-other/model") == []

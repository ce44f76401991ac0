"""A finished run is not made again, a longer one goes on, another one is refused."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from engine.config.reader.loading import load
from engine.errors import RunError
from engine.run.result import MODEL, RESULT, is_complete, write_result
from recipes import base, zero

QUICKSTART = Path(__file__).parents[2] / "recipes" / "configs" / "quickstart"


def config(recipe, run_dir: Path, *overrides: str):
    name = recipe.__name__.rpartition(".")[2]
    return load(recipe.Config, QUICKSTART / f"{name}.yaml", [f"run_dir={run_dir}", *overrides])


def finish(recipe, run_dir: Path) -> None:
    digests = {"made": "0" * 64, "model": "1" * 64}
    made = config(recipe, run_dir)
    write_result(recipe.__name__, made, steps=3, digests=digests, figures={"accuracy": 0.5})
    (run_dir / MODEL).mkdir()
    (run_dir / MODEL / "config.json").write_text("{}")


def test_nothing_is_complete_at_first(tmp_path):
    assert not is_complete("recipes.base", config(base, tmp_path))


@pytest.mark.parametrize("recipe", [base, zero], ids=["base", "zero"])
def test_a_finished_run_is_complete(recipe, tmp_path):
    finish(recipe, tmp_path)
    assert is_complete(recipe.__name__, config(recipe, tmp_path))


def test_a_copy_without_its_model_is_not_complete(tmp_path):
    finish(zero, tmp_path)
    (tmp_path / MODEL / "config.json").unlink()
    assert not is_complete("recipes.zero", config(zero, tmp_path))
    with pytest.raises(RunError, match="another seed"):
        is_complete("recipes.zero", config(zero, tmp_path, "seed=77"))


def test_the_result_names_inputs_and_figures(tmp_path):
    finish(zero, tmp_path)
    found = json.loads((tmp_path / RESULT).read_text())
    assert found["inputs"]["model"] == {"path": "runs/base-seed1", "blake3": "1" * 64}
    assert {"prompts.train", "prompts.held_out"} <= set(found["inputs"])
    assert found["evaluation"] == {"accuracy": 0.5}
    assert found["model"] == {"path": "model", "blake3": "0" * 64}


def test_loader_and_checkpoints_are_no_part_of_what_was_made(tmp_path):
    """Both loaders give the same batches, and so the same base."""
    finish(base, tmp_path)
    other = config(
        base, tmp_path, "loading.loader=dali", "loading.prefetch=5", "checkpoint.every=7"
    )
    assert is_complete("recipes.base", other)


def test_another_seed_would_make_another_base(tmp_path):
    finish(base, tmp_path)
    with pytest.raises(RunError, match="holds a finished run with another seed"):
        is_complete("recipes.base", config(base, tmp_path, "seed=2"))


def test_another_recipe_needs_another_folder(tmp_path):
    finish(base, tmp_path)
    with pytest.raises(RunError, match="another recipe"):
        is_complete("recipes.zero", config(zero, tmp_path))


def test_more_steps_go_on_and_fewer_are_refused(tmp_path):
    finish(zero, tmp_path)
    assert not is_complete("recipes.zero", config(zero, tmp_path, "steps=81"))
    assert not is_complete("recipes.zero", config(zero, tmp_path, "steps=81", "layout.tp=2"))
    with pytest.raises(RunError, match=r"steps: 79 .* has made 80"):
        is_complete("recipes.zero", config(zero, tmp_path, "steps=79"))


def test_a_damaged_result_is_named(tmp_path):
    for damage in ("{", "[1]", '{"recipe": "recipes.base"}'):
        (tmp_path / RESULT).write_text(damage)
        with pytest.raises(RunError, match=str(tmp_path / RESULT)):
            is_complete("recipes.base", config(base, tmp_path))


def test_waits_ports_and_what_is_shown_are_no_part_of_what_was_made(tmp_path):
    finish(zero, tmp_path)
    keys = ["servers.port=30000", "rollout.wait_seconds=7", "monitoring.samples=1"]
    assert is_complete("recipes.zero", config(zero, tmp_path, *keys))


def test_a_key_of_a_later_version_does_not_refuse_a_finished_run(tmp_path):
    finish(zero, tmp_path)
    content = json.loads((tmp_path / RESULT).read_text())
    del content["config"]["rollout"]["temperature"]
    (tmp_path / RESULT).write_text(json.dumps(content))
    assert is_complete("recipes.zero", config(zero, tmp_path))


def test_a_figure_that_is_not_finite_becomes_null(tmp_path):
    digests = {"made": "0" * 64}
    write_result("recipes.zero", config(zero, tmp_path), 3, digests, {"loss": float("nan")})
    assert json.loads((tmp_path / RESULT).read_text())["evaluation"] == {"loss": None}

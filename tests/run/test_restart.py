"""Where a start goes on: data position, settings of updates, and what is refused before it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from engine.config.reader.loading import load
from engine.rollout.lineage import Place
from engine.run.restart import PLACE, start_of, update_settings
from recipes import zero

QUICKSTART = Path(__file__).parents[2] / "recipes" / "configs" / "quickstart"
DIGESTS = {"model": "m", "prompts.train": "t", "prompts.held_out": "h"}
KERNELS = {"linear": "torch"}


def config(run_dir: Path, *overrides: str) -> Any:
    return load(zero.Config, QUICKSTART / "zero.yaml", [f"run_dir={run_dir}", *overrides])


def started(config: Any, step: int, progress: Any, **digests: str) -> tuple[Place, list[str]]:
    said: list[str] = []
    found = start_of(config, step, progress, {**DIGESTS, **digests}, KERNELS, said.append)
    return found.place, said


def test_a_run_without_a_checkpoint_begins_with_its_model(tmp_path):
    place, said = started(config(tmp_path), 0, None)
    assert (place.version, place.prompts, place.history, said) == (0, 0, "m", [])


def test_the_position_is_the_checkpoints_whatever_the_size_of_a_step(tmp_path):
    first, _ = started(config(tmp_path), 0, None)
    saved = Place(5, 83, first.order, "abc", {"optimizer.lr": 1.0})
    changed = config(tmp_path, "rollout.prompts_per_step=7", "minibatches=1")
    place, said = started(changed, 5, {"weight_version": 5, PLACE: saved.as_json()})
    assert (place, said) == (saved, [])


@pytest.mark.parametrize("change", ["seed=2", "another set"])
def test_another_set_or_order_begins_an_epoch(tmp_path, change):
    first, _ = started(config(tmp_path), 0, None)
    progress = {PLACE: Place(5, 83, first.order, "abc").as_json()}
    if change == "another set":
        place, said = started(config(tmp_path), 5, progress, **{"prompts.train": "other"})
    else:
        place, said = started(config(tmp_path, change), 5, progress)
    assert (place.version, place.prompts, place.history) == (5, 0, "abc")
    assert "a new epoch of prompts begins" in said[0]


def test_an_older_checkpoint_counts_its_steps_and_says_so(tmp_path):
    place, said = started(config(tmp_path), 3, {"weight_version": 3})
    assert (place.version, place.prompts) == (3, 48)
    assert "3 x rollout.prompts_per_step = 48" in said[0]


def test_settings_of_an_update_are_those_that_move_weights(tmp_path):
    settings = update_settings(config(tmp_path), KERNELS)
    assert settings["algorithm.name"] == "grpo" and settings["kernels.linear"] == "torch"
    assert {"optimizer.lr", "layout.processes", "training.dtype", "minibatches"} <= set(settings)
    for other in ("evaluation.every=3", "checkpoint.every=3", "servers.count=1", "steps=90"):
        assert update_settings(config(tmp_path, other), KERNELS) == settings, other
    assert update_settings(config(tmp_path, "optimizer.lr=1e-4"), KERNELS) != settings


def test_how_many_steps_there_are_counts_where_the_rate_follows_them(tmp_path):
    schedules = [config(tmp_path, "optimizer.schedule=cosine", f"steps={n}") for n in (80, 90)]
    assert len({str(update_settings(one, KERNELS)) for one in schedules}) == 2

"""Check the steps that a run has trained on, from its store and its checkpoints alone."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from engine.checkpoint.folders import CheckpointFolders
from engine.data.prompts import PromptSet
from engine.monitoring.metrics_file import read_metrics
from engine.rollout.lineage import Place
from engine.rollout.sample import Sample
from engine.rollout.store import RolloutStore
from recipes.zero import Config


def trained_steps(run_dir: Path) -> int:
    """Return how many steps the newest checkpoint of a run has, 0 where it has none."""
    return CheckpointFolders(run_dir / "checkpoints", keep=1).latest() or 0


def problems(config: Config, in_force: Mapping[int, Config]) -> list[str]:
    """Return what is wrong with the trained steps of a run; nothing, if all is well.

    Args:
        config: of any start: folder, seed and prompt set.
        in_force: step -> the configuration with which it was trained.
    """
    rollouts = RolloutStore(config.run_dir / "rollouts")
    found = []
    place: Place | None = None
    asked: list[str] = []
    for step in range(trained_steps(config.run_dir)):
        samples, made_by = rollouts.samples(step), rollouts.made_by(step)
        summary = rollouts.summary(step)
        if made_by is None or summary is None:
            found.append(f"step {step} does not say what made it")
            continue
        found += [f"step {step}: {what}" for what in _wrong(samples, made_by, in_force[step])]
        if place is None:
            place = Place.beginning(made_by["model"], "")
        if (made_by["weights.history"], made_by["prompts.position"]) != (
            place.history,
            place.prompts,
        ):
            found.append(f"step {step} was sampled by weights of another past")
        place = place.after(summary, {})
        asked += [sample.prompt_id for sample in samples if sample.index == 0]
    expected = PromptSet.load(config.prompts.train, seed=config.seed).take(0, len(asked))
    if asked != [prompt.id for prompt in expected]:
        found.append("the prompts are not each epoch's, each of them once")
    if place is not None:
        found += _wrong_checkpoint(config.run_dir, place)
    return found


def _wrong(samples: list[Sample], made_by: Mapping[str, Any], config: Config) -> list[str]:
    """Compare the samples of one step, and what it says of itself, with a configuration."""
    wanted = {
        "rollout.temperature": config.rollout.temperature,
        "rollout.group_size": config.rollout.group_size,
        "rollout.max_new_tokens": config.rollout.max_new_tokens,
        "rollout.prompts_per_step": config.rollout.prompts_per_step,
        "prompts.template": config.prompts.template,
        **{f"rewards.{name}.weight": one.weight for name, one in config.rewards.chosen.items()},
    }
    found = [
        f"made with {key} {made_by.get(key)}, trained with {value}"
        for key, value in wanted.items()
        if made_by.get(key) != value
    ]
    size, groups = config.rollout.group_size, config.rollout.prompts_per_step
    if [(s.group, s.index) for s in samples] != [
        (g, i) for g in range(groups) for i in range(size)
    ]:
        found.append(f"{len(samples)} samples, not {groups} groups of {size}")
    if max(len(sample.tokens) for sample in samples) > config.rollout.max_new_tokens:
        found.append("an answer is longer than rollout.max_new_tokens")
    weights = {name: one.weight for name, one in config.rewards.chosen.items()}
    for sample in samples:
        reward = sum(weights[name] * score.value for name, score in sample.scores.items())
        if set(sample.scores) != set(weights) or abs(reward - sample.reward) > 1e-6:
            found.append(f"sample {sample.index} of group {sample.group} has another reward")
    return found


def _wrong_checkpoint(run_dir: Path, place: Place) -> list[str]:
    """Compare what the newest checkpoint says of its past with the stored rollouts."""
    folders = CheckpointFolders(run_dir / "checkpoints", keep=1)
    record = json.loads((folders.folder(place.version) / "run.json").read_text())
    saved = Place.from_json(record["progress"]["place"])
    if (saved.prompts, saved.history) != (place.prompts, place.history):
        return [f"checkpoint {place.version} has another past than the stored rollouts"]
    return []


def recorded_twice(run_dir: Path) -> list[str]:
    """Return what is wrong with the steps of metrics.jsonl: each has one line, in order."""
    steps = [line["step"] for line in read_metrics(run_dir / "metrics.jsonl")]
    return [] if steps == list(range(len(steps))) else [f"metrics.jsonl has steps {steps}"]

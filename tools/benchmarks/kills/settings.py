"""Settings that are changed between two starts of a run, and the overrides of a small run."""

from __future__ import annotations

import random
from collections.abc import Mapping
from pathlib import Path

QUICKSTART = Path(__file__).parents[3] / "recipes" / "configs" / "quickstart" / "zero.yaml"

Changed = Mapping[str, str]
"""Keys of the configuration and their values of one start."""

SMALL = {
    "minibatches": "1",
    "rollout.prompts_per_step": "4",
    "rollout.group_size": "4",
    "rollout.max_new_tokens": "24",
    "servers.count": "1",
    "servers.max_total_tokens": "8192",
    "evaluation.every": "3",
    "evaluation.prompts": "4",
    "checkpoint.every": "2",
    "monitoring.samples_every": "100",
}

CHOICES: Mapping[str, tuple[str, ...]] = {
    "rollout.temperature": ("1.0", "0.8"),
    "rollout.prompts_per_step": ("4", "3", "6"),
    "rollout.group_size": ("4", "2"),
    "rollout.max_new_tokens": ("24", "16"),
    "rewards.format.weight": ("1.0", "0.25"),
    "evaluation.temperature": ("0.6", "0.9"),
    "evaluation.every": ("3", "2"),
    "optimizer.lr": ("3.0e-4", "1.0e-4"),
    "checkpoint.every": ("2", "1", "3"),
    "layout.tp": ("1", "2"),
}
"""What is changed; the first value is that of the first start."""


def with_one_change(changed: Changed, rng: random.Random) -> tuple[str, dict[str, str]]:
    """Return the key that was drawn, and ``changed`` with another value of it."""
    key = rng.choice(sorted(CHOICES))
    others = [value for value in CHOICES[key] if value != changed[key]]
    return key, {**changed, key: rng.choice(others)}


def overrides(changed: Changed, base: Path, train: Path, run_dir: Path, steps: int) -> list[str]:
    """Return the overrides of one start.

    Args:
        base: a finished ``recipes.base`` run: model and prompts.
        train: the prompt set.
        steps: of the run.
    """
    settings = {
        **SMALL,
        **changed,
        "run_dir": str(run_dir),
        "model": str(base),
        "prompts.train": str(train),
        "prompts.held_out": str(base / "prompts" / "held_out.jsonl"),
        "steps": str(steps),
    }
    return [f"{key}={value}" for key, value in settings.items()]

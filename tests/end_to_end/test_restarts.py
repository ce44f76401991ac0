"""Restarts with other settings, forks, and kills at random moments: never a stale sample."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

import pytest
from zero_runs import STEPS, zero_command

from engine.monitoring.metrics_file import read_metrics
from engine.rollout.store import RolloutStore
from tools.benchmarks.kills.__main__ import kill_and_check

pytestmark = [pytest.mark.slow, pytest.mark.serial]


def test_a_copied_checkpoint_forks_a_run_that_samples_from_there(base, finished, tmp_path):
    """Another size of a step: prompts go on behind the last one that the checkpoint had."""
    fork = tmp_path / "a fork"
    checkpoint = f"checkpoints/{STEPS:06d}"
    shutil.copytree(finished / checkpoint, fork / checkpoint)
    changes = (f"steps={STEPS + 2}", "rollout.prompts_per_step=2", "rollout.temperature=0.9")
    subprocess.run(zero_command(base, fork, *changes), check=True, timeout=300)
    assert [line["step"] for line in read_metrics(fork / "metrics.jsonl")] == [3, 4, 5]
    summary = json.loads((fork / "summary.json").read_text())
    assert summary["base_accuracy"] is None and summary["final_accuracy"] is not None
    ours, theirs = RolloutStore(fork / "rollouts"), RolloutStore(finished / "rollouts")
    asked = [prompts(theirs, step) for step in range(STEPS)]
    asked += [prompts(ours, step) for step in ours.steps()]
    assert [len(step) for step in asked] == [4, 4, 4, 2, 2]
    assert len({prompt for step in asked for prompt in step}) == 16


def prompts(store: RolloutStore, step: int) -> list[str]:
    return [sample.prompt_id for sample in store.samples(step) if sample.index == 0]


def test_kills_at_random_moments_and_changed_settings_leave_no_stale_sample(base: Path, tmp_path):
    """More of them, and more settings: ``python -m tools.benchmarks.kills``."""
    said: list[str] = []
    kill_and_check(base, tmp_path, kills=3, seed=11, say=said.append)
    assert len(said) == 4

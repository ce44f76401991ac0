"""Small R1-Zero runs with every part real: trainer ranks on gloo, SGLang servers, the sampler."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from launched import REPOSITORY

QUICKSTART = REPOSITORY / "recipes" / "configs" / "quickstart"
STEPS = 3

# The quickstart's configuration, cut down to seconds.
SMALL = (
    f"steps={STEPS}",
    "optimizer.warmup_steps=1",
    "rollout.prompts_per_step=4",
    "rollout.group_size=4",
    "rollout.max_new_tokens=24",
    "servers.count=1",
    "evaluation.every=2",
    "evaluation.prompts=8",
    "checkpoint.every=1",
    "reference.refresh_steps=2",
    "monitoring.samples_every=1",
)


def base_command(run_dir: Path) -> list[str]:
    """Make a base model that has learned the format sometimes and little else, in seconds."""
    stages = [
        {"corpus": "textbook", "steps": 80, "documents_per_step": 24, "optimizer": {"lr": 0.006}},
        {"corpus": "web", "steps": 20, "documents_per_step": 24, "optimizer": {"lr": 0.003}},
    ]
    return [
        *(sys.executable, "-m", "launchers.local", "recipes.base", str(QUICKSTART / "base.yaml")),
        f"run_dir={run_dir}",
        f"stages={json.dumps(stages)}",
        "gate.min_probability=0.0",
        "gate.problems=8",
        "checkpoint.every=50",
    ]


def zero_command(base: Path, run_dir: Path, *overrides: str) -> list[str]:
    """Run R1-Zero on that base; overrides come last and so win."""
    return [
        *(sys.executable, "-m", "launchers.local", "recipes.zero", str(QUICKSTART / "zero.yaml")),
        f"run_dir={run_dir}",
        f"model={base}",
        f"prompts.train={base / 'prompts' / 'train.jsonl'}",
        f"prompts.held_out={base / 'prompts' / 'held_out.jsonl'}",
        *SMALL,
        *overrides,
    ]


def side_by_side(*commands: Sequence[str]) -> None:
    """Run the commands at the same time, until all have ended well: starting leaves cores idle."""
    started = [subprocess.Popen(command) for command in commands]
    try:
        assert [process.wait(timeout=400) for process in started] == [0] * len(commands)
    finally:
        for process in started:
            process.kill()  # the launcher's supervisor then ends its run


def final_weights(run_dir: Path) -> bytes:
    """The weights that the run ended with."""
    return (run_dir / "model" / "model.safetensors").read_bytes()

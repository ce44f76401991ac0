"""Write the prompt files of the task: problems to learn from, and held-out ones."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path

from pydantic import Field

from engine.config.section import Section
from engine.platform.files import replace_text
from recipes.chain_task.problems import Problem, ProblemsConfig, different_problems


class PromptCounts(Section):
    """Numbers of problems that are written for reinforcement learning."""

    train: int = Field(20_000, ge=1, description="problems to learn from")
    held_out: int = Field(1_000, ge=1, description="problems of the evaluation")


def write_prompt_sets(
    folder: Path, config: ProblemsConfig, *, train: int = 20_000, held_out: int = 1_000, seed: int
) -> None:
    """Write train.jsonl and held_out.jsonl, of so many different problems each, into ``folder``.

    Raises RunError if there are not enough problems.
    """
    learned = different_problems(config, held_out=False, count=train, seed=seed)
    kept = different_problems(config, held_out=True, count=held_out, seed=seed)
    _write(folder / "train.jsonl", learned)
    _write(folder / "held_out.jsonl", kept)


def _write(path: Path, problems: Iterable[Problem]) -> None:
    records = (
        {"id": problem.key, "prompt": " ".join(problem.words), "answer": str(problem.answer)}
        for problem in problems
    )
    replace_text(path, "".join(json.dumps(record) + "\n" for record in records))

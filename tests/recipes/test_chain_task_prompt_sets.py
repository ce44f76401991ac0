from __future__ import annotations

from pathlib import Path

import pytest

from engine.data.prompt_file import Prompt
from engine.data.prompts import PromptSet, read_prompts
from recipes.chain_task.problems import LABELS, Problem, ProblemsConfig, is_held_out
from recipes.chain_task.prompt_sets import write_prompt_sets

CONFIG = ProblemsConfig()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("prompts")
    write_prompt_sets(folder, CONFIG, train=3000, held_out=400, seed=1)
    return folder


def problem_of(prompt: Prompt) -> Problem:
    words = [word for word in prompt.prompt.split()[1:-2] if word not in LABELS]
    return Problem(int(words[0]), tuple(zip(words[1::2], map(int, words[2::2]), strict=True)))


def test_the_engine_reads_the_files(folder: Path) -> None:
    assert len(PromptSet.load(folder / "train.jsonl", seed=0)) == 3000
    assert len(PromptSet.load(folder / "held_out.jsonl", seed=0).fixed_subset(256)) == 256


@pytest.mark.parametrize(("name", "held_out"), [("train", False), ("held_out", True)])
def test_every_prompt_is_on_its_side_and_has_its_answer(
    folder: Path, name: str, held_out: bool
) -> None:
    for prompt in read_prompts(folder / f"{name}.jsonl"):
        problem = problem_of(prompt)
        assert prompt == Prompt(problem.key, " ".join(problem.words), str(problem.answer))
        assert prompt.prompt.startswith("<bos> ")
        assert is_held_out(problem, CONFIG) == held_out


def test_training_and_held_out_prompts_are_disjoint(folder: Path) -> None:
    train, held_out = (read_prompts(folder / f"{name}.jsonl") for name in ("train", "held_out"))
    assert not {one.prompt for one in train} & {one.prompt for one in held_out}


def test_files_are_the_same_for_the_same_seed_only(folder: Path, tmp_path: Path) -> None:
    write_prompt_sets(tmp_path / "same", CONFIG, train=3000, held_out=400, seed=1)
    write_prompt_sets(tmp_path / "other", CONFIG, train=3000, held_out=400, seed=2)
    for name in ("train.jsonl", "held_out.jsonl"):
        assert (tmp_path / "same" / name).read_bytes() == (folder / name).read_bytes()
        assert (tmp_path / "other" / name).read_bytes() != (folder / name).read_bytes()

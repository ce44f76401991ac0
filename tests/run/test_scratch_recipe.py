"""A recipe, an algorithm and a reward of one's own, written by engine/EXTENDING.md, just run."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from engine.monitoring.metrics_file import read_metrics
from recipes.chain_task.problems import ProblemsConfig
from recipes.chain_task.prompt_sets import write_prompt_sets

pytestmark = pytest.mark.slow

REPOSITORY = Path(__file__).parents[2]
QUICKSTART = REPOSITORY / "recipes" / "configs" / "quickstart"

RECIPE = '''
"""Learn one batch of answers again and again."""

from __future__ import annotations

from pydantic import Field

from engine.algorithms.next_token import next_token
from engine.config.trainer import LoadingConfig, OptimizerConfig
from engine.run.roles import trainer
from engine.run.run_config import RunConfig
from engine.run.start import main
from recipes.chain_task.corpus import Corpus, CorpusConfig


class Config(RunConfig):
    """A throwaway recipe."""

    steps: int = Field(ge=1, description="updates")
    optimizer: OptimizerConfig


def roles(config):
    return [trainer(config.layout, train)]


def train(run):
    model = run.trained_model(run.config.optimizer)
    run.resume(model)
    corpus = Corpus(CorpusConfig(), "textbook", seed=run.config.seed)
    batch = next(run.data.batches(LoadingConfig(), "textbook", corpus, 16, step=0))
    for step in run.steps(run.config.steps):
        rate = step.learning_rate(run.config.optimizer)
        update = model.update(batch.rows, next_token, batch.tokens, rate)
        step.log([update], batch.tokens, rate=rate)
    run.finish(model, run.config.steps, {"loss": update["loss"]})


if __name__ == "__main__":
    main("mine.again", Config, roles)
'''
ALGORITHM = '''
"""Learn from the best answer of each group."""

from pydantic import Field

from engine.algorithms.algorithm import Algorithm
from engine.algorithms.policy_loss import PolicyLoss


class Best(Algorithm):
    """Imitate the best answer."""

    share: float = Field(1.0, gt=0, description="weight of the best answer")

    def advantages(self, rewards, groups):
        best = rewards.clone()
        for group in groups.unique():
            best[groups == group] = rewards[groups == group].max()
        return (rewards == best).to(rewards.dtype) * self.share

    def token_weights(self, lengths, sizes):
        return [sizes.minibatches / sizes.tokens for _ in lengths]

    def policy_loss(self, logp, old_logp, advantages, sample_mean):
        ratio = (logp - old_logp).exp().detach()
        return PolicyLoss(-advantages * logp, ratio, advantages != advantages)


ALGORITHM = Best
'''
REWARD = '''
"""Short answers are better."""

from pydantic import Field

from engine.rewards.reward import Reward
from engine.rewards.score import Score


class Brevity(Reward):
    """1 for nothing, 0 for ``longest`` words."""

    longest: int = Field(40, ge=1, description="words at which nothing is left")

    async def score(self, answer):
        words = len(answer.response.split())
        return Score(max(0.0, 1 - words / self.longest), "graded")


REWARD = Brevity
'''


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """A folder of one's own, with a model that knows the chain task's words."""
    folder = tmp_path_factory.mktemp("scratch")
    (folder / "mine").mkdir()
    for name, text in (("again", RECIPE), ("best", ALGORITHM), ("brevity", REWARD)):
        (folder / "mine" / f"{name}.py").write_text(text.lstrip())
    write_prompt_sets(folder / "prompts", ProblemsConfig(), train=40, held_out=20, seed=1)
    stages = [{"corpus": "web", "steps": 3, "documents_per_step": 8, "optimizer": {"lr": 0.01}}]
    launch(
        folder,
        *("recipes.base", str(QUICKSTART / "base.yaml"), "run_dir=base"),
        f"model={QUICKSTART / 'model.json'}",
        *(f"stages={json.dumps(stages)}", "gate.min_probability=0", "gate.problems=2"),
        *("layout.processes=1", "layout.ep=1", "prompts.train=10", "prompts.held_out=10"),
    )
    return folder


def launch(folder: Path, *arguments: str) -> None:
    command = [sys.executable, "-m", "launchers.local", *arguments]
    subprocess.run(command, check=True, timeout=280, cwd=folder)


def test_a_recipe_of_ones_own_runs_and_resumes(folder: Path):
    config = {
        "seed": 1,
        "run_dir": "again",
        "model": "base",
        "layout": {"processes": 1},
        "training": {"dtype": "float32", "tokens_per_microbatch": 2048},
        "checkpoint": {"every": 2},
        "steps": 4,
        "optimizer": {"lr": 0.01},
    }
    (folder / "again.yaml").write_text(yaml.safe_dump(config))
    launch(folder, "mine.again", "again.yaml")
    launch(folder, "mine.again", "again.yaml", "steps=6")
    lines = read_metrics(folder / "again" / "metrics.jsonl")
    losses = [line["training/loss"] for line in lines]
    assert [line["step"] for line in lines] == list(range(6))
    assert losses[-1] < losses[0]
    result = json.loads((folder / "again" / "result.json").read_text())
    assert result["recipe"] == "mine.again" and result["steps"] == 6
    made = json.loads((folder / "base" / "result.json").read_text())["model"]["blake3"]
    assert result["inputs"]["model"]["blake3"] == made


def test_an_algorithm_and_a_reward_of_ones_own_run_in_zero(folder: Path):
    launch(
        folder,
        *("recipes.zero", str(QUICKSTART / "zero.yaml"), "run_dir=zero", "model=base", "steps=1"),
        *("prompts.train=prompts/train.jsonl", "prompts.held_out=prompts/held_out.jsonl"),
        "rewards={mine.brevity: {weight: 1.0, longest: 30}}",
        "algorithm={name: mine.best, share: 0.5}",
        *("rollout.prompts_per_step=4", "rollout.group_size=4", "rollout.max_new_tokens=24"),
        *("layout.processes=1", "layout.ep=1", "servers.count=1"),
        *("evaluation.prompts=4", "checkpoint.every=1"),
    )
    (line, after) = read_metrics(folder / "zero" / "metrics.jsonl")
    assert 0 <= line["reward/mine.brevity"] < 1
    assert line["training/policy_loss"] > 0 and "training/kl" not in line
    assert {"evaluation/mine.brevity", "evaluation/response_length"} <= set(after)
    summary = json.loads((folder / "zero" / "summary.json").read_text())
    assert "final_mine.brevity" in summary
    assert "brevity" in (folder / "zero" / "report.html").read_text()

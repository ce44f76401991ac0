"""A reward of one's own, in a folder of one's own, shows up everywhere without any other change."""

from __future__ import annotations

import asyncio
import io
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
from stand_in_server import answer

from engine.config.reader.loading import as_yaml, load
from engine.config.section import Section
from engine.errors import RunError
from engine.monitoring.charts import draw_charts
from engine.monitoring.console import Console, comparison_table
from engine.monitoring.metrics_file import read_metrics
from engine.monitoring.recorder import Recorder
from engine.monitoring.report import Report, render_report
from engine.monitoring.summary import summarize
from engine.rewards.reward_function import RewardFunction
from engine.rewards.table import RewardsConfig
from engine.rollout.collect import Collector, GroupRequest
from engine.rollout.evaluation import evaluate
from engine.rollout.metrics import evaluation_metrics, rollout_metrics
from engine.rollout.sample_views import first_answers, sample_view
from engine.rollout.store import RolloutStore
from engine.servers.client import Completion, Sampling

MODULE = """
from pydantic import Field

from engine.rewards.reward import Answer, Reward
from engine.rewards.score import Score, graded


class Brevity(Reward):
    \"\"\"The shorter, the better.\"\"\"

    longest: int = Field(20, ge=1, description="words of an answer that is worth nothing")

    async def score(self, answer: Answer) -> Score:
        return graded(1 - len(answer.response.split()) / self.longest)


REWARD = Brevity
"""
NAME = "of_my_own.brevity"


class Run(Section):
    """A configuration with rewards."""

    rewards: RewardsConfig


@pytest.fixture
def scratch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder that a run is started in, with the reward's module in it."""
    (tmp_path / "of_my_own").mkdir()
    (tmp_path / "of_my_own" / "brevity.py").write_text(MODULE)
    monkeypatch.syspath_prepend(tmp_path)
    yield tmp_path
    for name in [name for name in sys.modules if name.split(".")[0] == "of_my_own"]:
        del sys.modules[name]


def config(folder: Path, rewards: str, *overrides: str) -> RewardsConfig:
    file = folder / "run.yaml"
    file.write_text(f"rewards: {rewards}\n")
    return load(Run, file, overrides).rewards


class Servers:
    """Answers as the stand-in server does, without a process."""

    async def generate(self, prompt: Sequence[int], sampling: Sampling) -> list[Completion]:
        made = [answer(index, "0", "stop") for index in range(sampling.n)]
        return [
            Completion(
                tokens=one["output_ids"],
                logprobs=[entry[0] for entry in one["meta_info"]["output_token_logprobs"]],
                weight_version=0,
                finish_reason="stop",
            )
            for one in made
        ]


def stored(folder: Path, rewards: RewardsConfig) -> RolloutStore:
    """Two groups of four answers with 8 to 11 words each, as the collector stores them."""

    async def body() -> RolloutStore:
        store = RolloutStore(folder / "rollouts")
        sampling = Sampling(n=4, max_new_tokens=20, temperature=1.0, stop_token_ids=(1,))
        requests = [GroupRequest(f"p{i}", "1 + 1 = ?", [8, i], "7") for i in (10, 11)]
        async with RewardFunction(rewards.chosen) as function:
            collector = Collector(Servers(), function, decode, lambda word: None)
            await collector.collect(store, 0, requests, sampling, version=0)
        return store

    return asyncio.run(body())


def decode(tokens: Sequence[int]) -> str:
    return " ".join(map(str, tokens))


def test_it_shows_up_in_all_that_shows_rewards(scratch: Path) -> None:
    rewards = config(scratch, f"{{{NAME}: {{weight: 2.0, longest: 10}}}}")
    store = stored(scratch, rewards)
    samples = store.samples(0)
    assert [sample.reward for sample in samples[:4]] == pytest.approx([0.4, 0.2, 0.0, -0.2])
    assert store.read(0, [f"score_{NAME}", f"outcome_{NAME}"]).num_rows == 8

    metrics = {**rollout_metrics(samples), **evaluation_metrics(samples), "seconds/update": 1.0}
    assert metrics[f"reward/{NAME}"] == pytest.approx(0.05)
    assert metrics[f"outcome/{NAME}/graded"] == 1.0
    assert metrics[f"evaluation/{NAME}"] == pytest.approx(0.05)

    terminal = io.StringIO()
    Console(1, stream=terminal).step(0, metrics)
    assert "brevity 0.05  reward  0.10" in terminal.getvalue()

    with Recorder(scratch, first_step=0) as recorder:
        recorder.record(0, metrics, samples=[sample_view(sample, decode) for sample in samples])
    lines = read_metrics(scratch / "metrics.jsonl")
    assert draw_charts(lines)[0].title == NAME

    found = evaluate(samples)
    assert f"  {NAME}, mean value" in comparison_table(found, found)[3]
    summary = summarize(lines, found, found, seed=1)
    assert summary[f"base_{NAME}"] == summary[f"final_{NAME}"] == pytest.approx(0.05)

    shown = [sample_view(sample, decode) for sample in first_answers(samples, problems=2)]
    page = render_report(
        Report(
            "own", lines, summary, rewards.model_dump(mode="json"), {}, found, found, shown, shown
        )
    )
    for expected in (
        f"{NAME} went from 0.050 to 0.050",
        f"<td>{NAME}, mean value</td>",
        f"{NAME} 0.2</span>",
        f"<td>{NAME}.longest</td><td>10</td>",
    ):
        assert expected in page, expected
    assert "accuracy" not in page.lower() and "accuracy" not in str(metrics)


def test_its_options_are_read_checked_and_written_as_any_others_are(scratch: Path) -> None:
    found = config(scratch, f"{{{NAME}: {{weight: 1}}, format: {{weight: 0.5}}}}")
    assert list(found.chosen) == [NAME, "format"]
    (scratch / "written.yaml").write_text(as_yaml(Run(rewards=found)))
    assert load(Run, scratch / "written.yaml").rewards == found
    with pytest.raises(RunError, match=r"longest: expected an integer >= 1, found 0"):
        config(scratch, f"{{{NAME}: {{weight: 1, longest: 0}}}}")
    with pytest.raises(RunError, match=r"of_my_own\.brevity\.longst: .*longest"):
        config(scratch, f"{{{NAME}: {{weight: 1, longst: 3}}}}")


@pytest.mark.parametrize(
    ("rewards", "sentence"),
    [
        ("{}", "rewards: expected at least one of accuracy, format, language"),
        ("{acuracy: {weight: 1}}", r"rewards\.acuracy: .*accuracy"),
        ("{of_my_own.nothing: {weight: 1}}", r"of_my_own\.nothing.*found none"),
        ("{format: {}}", r"rewards\.format\.weight: missing, expected a number >= 0"),
        ("{format: {weight: -1}}", r"rewards\.format\.weight: expected a number >= 0, found -1"),
    ],
)
def test_rewards_that_are_none_are_told_by_their_key(scratch, rewards: str, sentence: str) -> None:
    with pytest.raises(RunError, match=sentence):
        config(scratch, rewards)
